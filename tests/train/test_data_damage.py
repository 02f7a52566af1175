"""Damage of any kind to any text, header or picture ends in an error of ours or in a set that can be read."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from set_maker import encoded, opened, picture, shard

from sfumato.errors import SfumatoError

Change = tuple[str, int, bytes]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["replace", "delete", "insert", "cut"]), st.integers(0, 5000), st.binary(max_size=8)),
    min_size=1,
    max_size=3,
)


def damaged(content: bytes, changes: list[Change]) -> bytes:
    result = bytearray(content)
    for kind, place, some in changes:
        at = place % (len(result) + 1)
        if kind == "replace":
            result[at : at + len(some)] = some
        elif kind == "delete":
            del result[at : at + len(some)]
        elif kind == "insert":
            result[at:at] = some
        else:
            del result[at:]
    return bytes(result)


def made(folder: Path, kind: str) -> tuple[Path, Path]:
    """A small set of a kind: its path, and the file in it that is going to be damaged."""
    folder.mkdir(exist_ok=True)
    image = picture(folder / "a.png")
    if kind == "shard":
        members = {"0.png": encoded(), "0.txt": "a", "1.png": encoded(), "1.json": json.dumps({"text": ["b", "c"]})}
        return (shard(folder / "set.tar", members),) * 2
    if kind == "configuration":
        keys = 'resolution = 32\nflip_aug = true\n[[datasets]]\n[[datasets.subsets]]\nclass_tokens = "k"\n'
        path = folder / "set.toml"
        path.write_text(f'[general]\nshuffle_caption = true\n{keys}image_dir = "{folder}"\n')
        return path, path
    if kind == "picture":
        image.with_suffix(".txt").write_text("a")
        return folder, image
    name, text = {
        "lines": ("metadata.jsonl", '{"file_name": "a.png", "text": ["a", "b"]}\n'),
        "cells": ("metadata.csv", 'file_name,text\na.png,"hello, there"\n'),
    }[kind]
    (folder / name).write_text(text)
    return folder, folder / name


@pytest.mark.parametrize("kind", ["shard", "configuration", "picture", "lines", "cells"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_damage_is_an_error_of_ours_or_harmless(tmp_path: Path, kind: str, changes: list[Change]) -> None:
    path, victim = made(tmp_path / kind, kind)
    victim.write_bytes(damaged(victim.read_bytes(), changes))
    try:
        samples = opened(path)
        samples.captions(range(samples.length), range(samples.length))
        samples.pictures(range(samples.length))
    except SfumatoError:
        return
