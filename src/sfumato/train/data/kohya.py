"""Sets in the layouts of kohya's sd-scripts: folders named `10_name`, and dataset configurations."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.errors import DataError
from sfumato.train.data.folder import CAPTION_SUFFIXES, caption_beside, check_inside, files_in, json_object
from sfumato.train.data.kohya_settings import Subset, read_settings
from sfumato.train.data.records import PICTURE_SUFFIXES, FilePlace, Group, Record, Source, checked_caption
from sfumato.train.data.words import CaptionRules

NAMED = re.compile(r"(\d+)_(.+)")


def named_folders(root: Path) -> list[Path]:
    """The folders `REPEATS_CLASS` in a folder, sorted."""
    return sorted(path for path in root.iterdir() if path.is_dir() and NAMED.fullmatch(path.name))


def from_named_folders(root: Path) -> Source:
    """The pictures in the folders `10_name` of a folder: 10 repeats, and `name` where a picture has no caption."""
    folders = named_folders(root)
    inside = {folder.name for folder in folders}
    for path in files_in(root, PICTURE_SUFFIXES):
        if path.relative_to(root).parts[0] not in inside:
            raise DataError(f"{root} has folders such as {folders[0].name}, but {path.name} lies outside of them.")
    records: list[Record] = []
    groups = []
    for number, folder in enumerate(folders):
        found = NAMED.fullmatch(folder.name)
        assert found is not None
        groups.append(Group(words=CaptionRules(first_line=True), repeats=int(found[1])))
        records += _in_folder(folder, found[2].strip(), CAPTION_SUFFIXES, number, f"{folder.name}/")
    return Source(kind="kohya folders", where=str(root), records=records, groups=groups)


def from_settings(path: Path) -> Source:
    """The pictures of a dataset configuration. Raises ConfigError or DataError."""
    subsets, notes = read_settings(path)
    records: list[Record] = []
    for number, subset in enumerate(subsets):
        if subset.folder is not None and not subset.folder.is_dir():
            raise DataError(f"{path}: image_dir {str(subset.folder)!r} is not a folder.")
        if subset.metadata is not None:
            records += _of_metadata(subset, number)
        elif subset.folder is not None:
            prefix = f"{subset.folder}/"
            records += _in_folder(subset.folder, subset.class_tokens, subset.caption_suffixes, number, prefix)
    groups, more = _balanced([subset.group for subset in subsets], [subset.dataset for subset in subsets], records)
    return Source(
        decides_shapes=True,
        kind="kohya dataset configuration",
        where=str(path),
        records=records,
        groups=groups,
        notes=[*notes, *more],
    )


def _in_folder(folder: Path, named: str, suffixes: tuple[str, ...], group: int, prefix: str) -> list[Record]:
    """The pictures right in a folder, captioned by the text beside each, else by the name that the folder gives."""
    records = []
    for path in files_in(folder, PICTURE_SUFFIXES):
        if path.parent != folder:
            continue
        beside = caption_beside(path, suffixes)
        text = named if beside is None else beside
        name = f"{prefix}{path.name}"
        records.append(Record(name, FilePlace(path), (checked_caption(text, name),) if text else (), group))
    return records


def _of_metadata(subset: Subset, group: int) -> list[Record]:
    """The pictures of a fine-tuning JSON, `{path or stem: {caption, tags}}`: the caption, then the tags."""
    path = subset.metadata
    assert path is not None
    root = subset.folder or path.parent
    table = json_object(path)
    stems: dict[str, list[Path]] = {}
    for picture in files_in(root, PICTURE_SUFFIXES):
        stems.setdefault(str(picture.relative_to(root).with_suffix("")), []).append(picture)
    records: list[Record] = []
    lies: dict[Path, str] = {}
    for key, row in table.items():
        where = f"{path}: {key!r}"
        picture = _picture(root, key, stems, where)
        if picture in lies:
            raise DataError(f"{where} and {lies[picture]!r} are the same picture.")
        lies[picture] = key
        text = _joined(row, subset.group.words, where)
        records.append(Record(str(key), FilePlace(picture), (text,) if text else (), group))
    return records


def _picture(root: Path, key: str, stems: Mapping[str, list[Path]], where: str) -> Path:
    if "\0" in key:
        raise DataError(f"{where} has a NUL character.")
    named = root / key
    if named.suffix.lower() in PICTURE_SUFFIXES and named.is_file():
        if not named.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{where} lies outside of {root}.")
        check_inside(named, root)
        return named.resolve()
    found = stems.get(key, [])
    if len(found) != 1:
        raise DataError(f"{where}: {len(found) or 'no'} pictures of this name in {root}.")
    return found[0].resolve()


def _joined(row: object, words: CaptionRules, where: str) -> str:
    if not isinstance(row, dict):
        raise DataError(f"{where}: needs an object with caption or tags.")
    values: dict[str, Any] = {key: row.get(key) or "" for key in ("caption", "tags")}
    if not all(isinstance(value, str) for value in values.values()):
        raise DataError(f"{where}: caption and tags must be texts.")
    caption, tags = values["caption"], values["tags"]
    if not caption or not tags:
        return checked_caption(caption or tags, where)
    tags = tags.replace("\n", words.separator)
    lines = caption.splitlines() if words.wildcard else [caption]
    return checked_caption("\n".join(f"{line}{words.separator} {tags}" for line in lines if line.strip()), where)


def _balanced(groups: list[Group], datasets: list[int], records: list[Record]) -> tuple[list[Group], list[str]]:
    """Pictures that regularise, repeated in whole rounds until there are as many as of the others in their dataset.

    kohya repeats a part of them once more to make the numbers equal; here they are equal or up to one round above.
    """
    count = [sum(record.group == number for record in records) for number in range(len(groups))]
    result, notes = list(groups), []
    for dataset in sorted(set(datasets)):
        members = [number for number, each in enumerate(datasets) if each == dataset]
        regular = [number for number in members if groups[number].regularises]
        have = sum(count[number] * groups[number].repeats for number in regular)
        wanted = sum(count[number] * groups[number].repeats for number in members if number not in regular)
        if have and wanted > have:
            rounds = -(-wanted // have)
            for number in regular:
                result[number] = replace(groups[number], repeats=groups[number].repeats * rounds)
            notes.append(
                f"Dataset {dataset}: {have} regularisation samples are repeated {rounds} times beside {wanted}."
            )
    return result, notes
