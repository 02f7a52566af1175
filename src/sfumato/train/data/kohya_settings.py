"""A dataset configuration of kohya's sd-scripts, TOML or JSON: which key may stand where, and which level wins.

[general] holds for all, [[datasets]] for their subsets, [[datasets.subsets]] for themselves; the lower level wins.
What sfumato has not got is an error by name, unless it is switched off there.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import ConfigError, reason
from sfumato.train.data.buckets import BucketRules, settled
from sfumato.train.data.records import Group
from sfumato.train.data.words import CaptionRules

Kinds = tuple[type, ...]
TEXT, FLAG, WHOLE, NUMBER = (str,), (bool,), (int,), (int, float)

# In all three levels.
SHARED: Mapping[str, Kinds] = {
    "num_repeats": WHOLE,
    "shuffle_caption": FLAG,
    "keep_tokens": WHOLE,
    "keep_tokens_separator": TEXT,
    "caption_separator": TEXT,
    "secondary_separator": TEXT,
    "enable_wildcard": FLAG,
    "caption_prefix": TEXT,
    "caption_suffix": TEXT,
    "caption_dropout_rate": NUMBER,
    "caption_tag_dropout_rate": NUMBER,
    "flip_aug": FLAG,
    "random_crop": FLAG,
    "caption_extension": TEXT,
    "class_tokens": TEXT,
}
# In [general] and [[datasets]].
WIDER: Mapping[str, Kinds] = {
    "resolution": (int, list),
    "enable_bucket": FLAG,
    "min_bucket_reso": WHOLE,
    "max_bucket_reso": WHOLE,
    "bucket_reso_steps": WHOLE,
    "bucket_no_upscale": FLAG,
}
OWN: Mapping[str, Kinds] = {"image_dir": TEXT, "is_reg": FLAG, "metadata_file": TEXT}  # in a subset only
# What there is elsewhere: accepted in the one value that switches it off.
SWITCHED_OFF: Mapping[str, object] = {
    "color_aug": False,
    "alpha_mask": False,
    "token_warmup_step": 0,
    "token_warmup_min": 1,
    "caption_dropout_every_n_epochs": 0,
    "network_multiplier": 1.0,
    "validation_split": 0,
    "face_crop_aug_range": None,
    "custom_attributes": {},
    "resize_interpolation": "lanczos",
    "conditioning_data_dir": None,
    "validation_seed": None,
}
ELSEWHERE = {"batch_size": "run.batch says it", "cache_info": "there is nothing to cache"}
NOT_OF_FINE_TUNING = ("caption_extension", "class_tokens", "is_reg")


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A subset with everything that holds for it. `metadata` is its fine-tuning JSON, if it has one."""

    folder: Path | None
    metadata: Path | None
    class_tokens: str
    caption_suffixes: tuple[str, ...]
    dataset: int
    group: Group


def read_settings(path: Path) -> tuple[list[Subset], list[str]]:
    """The subsets of a dataset configuration, and notes on what is set elsewhere here.

    Raises ConfigError naming the level and the key. Relative folders start where the command is run, as kohya's do.
    """
    table = _table(path)
    _known(table, {"general": (dict,), "datasets": (list,)}, str(path))
    general = table.get("general", {})
    notes: list[str] = []
    _known(general, {**SHARED, **WIDER}, f"{path}, [general]", notes)
    subsets = []
    for number, dataset in enumerate(_tables(table.get("datasets"), f"{path}: [[datasets]]"), 1):
        where = f"{path}, dataset {number}"
        _known(dataset, {**SHARED, **WIDER, "subsets": (list,)}, where, notes)
        inner = _tables(dataset.get("subsets"), f"{where}: [[datasets.subsets]]")
        if len({"metadata_file" in subset for subset in inner}) > 1:
            raise ConfigError(f"{where}: subsets with and without metadata_file do not mix; make two datasets of them.")
        for at, subset in enumerate(inner, 1):
            place = f"{where}, subset {at}"
            _known(subset, {**SHARED, **OWN}, place, notes)
            for key in NOT_OF_FINE_TUNING:
                if "metadata_file" in subset and subset.get(key) is not None:
                    raise ConfigError(f"{place}: {key} does not go with metadata_file.")
            levels = [{k: v for k, v in level.items() if v is not None} for level in (general, dataset, subset)]
            subsets.append(_subset({**levels[0], **levels[1], **levels[2]}, place, number))
    return subsets, sorted(set(notes))


def _subset(values: Mapping[str, Any], where: str, dataset: int) -> Subset:
    folder, metadata = values.get("image_dir"), values.get("metadata_file")
    if folder is None and metadata is None:
        raise ConfigError(f"{where}: needs image_dir.")
    for key in ("caption_dropout_rate", "caption_tag_dropout_rate"):
        if not 0 <= values.get(key, 0) <= 1:
            raise ConfigError(f"{where}: {key} is {values[key]}; it is a share from 0 to 1.")
    for key, least in (("num_repeats", 0), ("keep_tokens", 0), ("bucket_reso_steps", 8)):
        if values.get(key, least) < least:
            raise ConfigError(f"{where}: {key} is {values[key]}; it must be at least {least}.")
    separator = values.get("caption_separator", ",")
    suffix = values.get("caption_extension")
    if not separator or (suffix is not None and not suffix.startswith(".")):
        wrong = "caption_separator is empty" if not separator else f"caption_extension {suffix!r} needs its dot"
        raise ConfigError(f"{where}: {wrong}.")
    words = CaptionRules(
        shuffle=values.get("shuffle_caption", False),
        keep=values.get("keep_tokens", 0),
        keep_separator=values.get("keep_tokens_separator", ""),
        separator=separator,
        secondary_separator=values.get("secondary_separator", ""),
        wildcard=values.get("enable_wildcard", False),
        first_line=True,
        prefix=values.get("caption_prefix", ""),
        suffix=values.get("caption_suffix", ""),
        dropout=float(values.get("caption_dropout_rate", 0)),
        tag_dropout=float(values.get("caption_tag_dropout_rate", 0)),
    )
    resolution = _resolution(values.get("resolution"), where)
    group = Group(
        words=words,
        repeats=values.get("num_repeats", 1),
        regularises=values.get("is_reg", False),
        flip=values.get("flip_aug", False),
        random_crop=values.get("random_crop", False),
        resolution=resolution,
        buckets=_buckets(values, resolution, where),
    )
    return Subset(
        folder=None if folder is None else Path(folder).expanduser(),
        metadata=None if metadata is None else Path(metadata).expanduser(),
        class_tokens=values.get("class_tokens", "").strip() if metadata is None else "",
        caption_suffixes=(".txt", ".caption") if suffix is None else (suffix,),
        dataset=dataset,
        group=group,
    )


def _buckets(values: Mapping[str, Any], resolution: tuple[int, int] | None, where: str) -> BucketRules | None:
    if not values.get("enable_bucket", False):
        return None
    rules = BucketRules(
        smallest=values.get("min_bucket_reso", 256),  # kohya's own values where the file says nothing
        largest=values.get("max_bucket_reso", 1024),
        step=values.get("bucket_reso_steps", 64),
        upscale=not values.get("bucket_no_upscale", False),
    )
    try:
        settled(rules, resolution or (rules.smallest, rules.smallest))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return rules


def _resolution(value: object, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(side) is int and side >= 8 for side in sides):
        raise ConfigError(f"{where}: resolution is a whole number or [width, height] in pixels, found {value!r}.")
    return sides[0], sides[1]


def _known(table: Mapping[str, Any], keys: Mapping[str, Kinds], where: str, notes: list[str] | None = None) -> None:
    """Raises ConfigError for a key that is unknown here, not supported, or of another type."""
    for key, value in table.items():
        if value is None:  # JSON's way to leave a key unset
            continue
        if key in keys:
            if not isinstance(value, keys[key]) or isinstance(value, bool) != (keys[key] == FLAG):
                kinds = " or ".join(kind.__name__ for kind in keys[key])
                raise ConfigError(f"{where}: {key} must be {kinds}, found {value!r}.")
        elif key in ELSEWHERE and notes is not None:
            notes.append(f"{key} is not taken from the dataset configuration: {ELSEWHERE[key]}.")
        elif key in SWITCHED_OFF and notes is not None:
            off = SWITCHED_OFF[key]
            if off is None or value != off:
                keep = "" if off is None else f", or set it to {json.dumps(off)}"
                raise ConfigError(f"{where}: {key} = {value!r} is not supported; remove it{keep}.")
        else:
            near = difflib.get_close_matches(key, keys, n=1)
            raise ConfigError(
                f"{where}: unknown key {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(keys)}.")
            )


def _tables(value: object, where: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise ConfigError(f"{where} must be given, as one section or more.")
    return value


def _table(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}.") from error
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise ConfigError(f"{path} is not {kind}: {error}.") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path} must hold [general] and [[datasets]].")
    return table
