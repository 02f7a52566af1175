"""What a path is: the kind of set that lies there, and the set itself."""

import logging
from dataclasses import replace
from pathlib import Path

from sfumato.errors import ConfigError, DataError
from sfumato.train.config import DataConfig
from sfumato.train.data import folder, kohya, shards, tables
from sfumato.train.data.pictures import PictureSet
from sfumato.train.data.pixels import look_at_all
from sfumato.train.data.records import PICTURE_SUFFIXES, Source
from sfumato.train.data.samples import Samples, World

log = logging.getLogger(__name__)

CELL = 8  # pixels of a latent cell, of which a picture has whole ones
KINDS = (
    "a folder of pictures with captions, a folder of 10_name folders, a dataset configuration (.toml, .json), "
    "shards (.tar), tables (.parquet, .arrow), or a set saved by datasets"
)


def read_source(path: str, column: str = "text", picture_column: str = "") -> Source:
    """The set at a path, only its captions read. Raises DataError or ConfigError for what it is not.

    `column` names the captions, `picture_column` the pictures, where there are columns; see the sources' modules.
    """
    if "\0" in path:
        raise DataError("The path of the data has a NUL character.")
    place = Path(path).expanduser()
    suffix = place.suffix.lower()
    if place.is_dir():
        return _in_folder(place, column, picture_column)
    if suffix == ".tar":
        return shards.from_shards(shards.expanded(str(place)), path, column)
    if not place.is_file():
        raise DataError(f"There are no pictures at {path!r}: it is neither 'world' nor {KINDS}.")
    if suffix in (".toml", ".json"):
        return kohya.from_settings(place)
    if suffix in tables.TABLE_SUFFIXES:
        return tables.from_tables([place], path, column, picture_column)
    if place.name in folder.METADATA:
        return folder.from_metadata(place, column, picture_column)
    if suffix in (".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip"):
        raise DataError(f"{path} is compressed; unpack it: shards are plain .tar.")
    raise DataError(f"{path} is no set of pictures: needed is {KINDS}.")


def _in_folder(root: Path, column: str, picture_column: str) -> Source:
    metadata = [root / name for name in folder.METADATA if (root / name).is_file()]
    if len(metadata) > 1:
        raise DataError(f"{root} has both {' and '.join(folder.METADATA)}; keep one of them.")
    if metadata:
        return folder.from_metadata(metadata[0], column, picture_column)
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return tables.from_saved(root, column, picture_column)
    files = folder.files_in(root, (*PICTURE_SUFFIXES, ".tar", *tables.TABLE_SUFFIXES))
    found = {
        "pictures": [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES],
        "shards": [path for path in files if path.suffix.lower() == ".tar"],
        "tables": [path for path in files if path.suffix.lower() in tables.TABLE_SUFFIXES],
    }
    kinds = [kind for kind, paths in found.items() if paths]
    if len(kinds) > 1:
        raise DataError(f"{root} holds {' and '.join(kinds)}; name one file, or a folder of one kind.")
    if found["shards"]:
        return shards.from_shards(found["shards"], str(root), column)
    if found["tables"]:
        return tables.from_tables(found["tables"], str(root), column, picture_column)
    if not kinds:
        raise DataError(f"{root} holds no pictures ({', '.join(PICTURE_SUFFIXES)}), shards or tables.")
    return kohya.from_named_folders(root) if kohya.named_folders(root) else folder.from_stems(root)


def open_samples(config: DataConfig) -> World | PictureSet:
    """The samples that a configuration names, every picture looked at.

    Shapes are as `buckets` says, but a dataset configuration decides itself. Raises ConfigError or DataError before any
    work: for pictures without a caption, and too many that cannot be read.
    """
    if config.size % CELL:
        raise ConfigError(f"data.size must be a multiple of {CELL}, found {config.size}.")
    if config.source == "world":
        return World(config)
    source = read_source(config.source, config.caption_column, config.image_column)
    if not source.decides_shapes and not config.buckets:
        source = replace(source, groups=[replace(group, buckets=None) for group in source.groups])
    for group in source.groups:
        if group.buckets is None and any(side % CELL for side in group.resolution or ()):
            raise ConfigError(
                f"{source.where} says resolution {group.resolution}; without buckets both must be multiples of {CELL}."
            )
    if config.caption:
        said = [r if r.captions else replace(r, captions=(config.caption,)) for r in source.records]
        source = replace(source, records=said)
    log.info("Looking at %d pictures of %s: %s.", len(source.records), source.where, source.kind)
    found = look_at_all(source.records)
    samples = PictureSet(source, config.size, found, pool=config.pool, tolerated=config.unreadable)
    bare = samples.without_caption()
    if bare:
        raise DataError(
            f"{len(bare)} pictures in {source.where} have no caption, first {bare[0]!r}: each needs words, in a .txt "
            "of the same stem or where the set has its captions; or set data.caption for all of them."
        )
    for line in source.notes:
        log.warning("%s", line)
    say_left_out(samples)
    return samples


def say_left_out(samples: Samples) -> None:
    """Tells the operator how many pictures could not be read, and the first few of them."""
    left_out = samples.left_out
    if left_out:
        some = "; ".join(f"{each.name}: {each.reason}" for each in left_out[:5])
        log.warning("%d pictures could not be read and were left out: %s.", len(left_out), some)
