"""Folders of pictures with captions, and every way in which they can be wrong."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from set_maker import BLUE, GREEN, RED, colours, opened, picture, said

from sfumato.errors import ConfigError, DataError
from sfumato.scenes.captions import caption
from sfumato.scenes.render import render
from sfumato.scenes.scene import scene
from sfumato.train import run_training
from sfumato.train.config import DataConfig
from sfumato.train.data import World, open_samples, read_source, shown


def described(folder: Path, *rows: object) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_a_caption_beside_each_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", RED, (64, 32), "a red field\n")
    picture(tmp_path / "inner/b.png", BLUE)
    (tmp_path / "inner/b.caption").write_text("a blue field")
    picture(tmp_path / ".hidden/c.png", GREEN)
    samples = open_samples(DataConfig(source=str(tmp_path), size=16))
    assert samples.length == 2
    assert samples.captions([1, 0], [0, 0]) == ["a blue field", "a red field"]
    pixels = samples.pictures([0])
    assert (pixels.shape, pixels.dtype) == ((1, 3, 16, 16), torch.float32)
    assert torch.equal(pixels[0, :, 8, 8], torch.tensor([1.0, -1.0, -1.0]))


def test_metadata_with_one_or_several_captions(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", BLUE)
    described(tmp_path, {"file_name": "b.png", "text": ["two", "zwei"]}, {"file_name": "a.png", "text": "one"})
    samples = opened(tmp_path)
    assert samples.captions([1, 0, 0], [7, 4, 5]) == ["one", "two", "zwei"]
    assert colours(samples) == [BLUE, RED]


def test_metadata_as_csv_with_columns_of_other_names(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", GREEN)
    (tmp_path / "metadata.csv").write_text('﻿file,words,year\nin/a.png,"green, and\nplain",1999\n', encoding="utf-8")
    samples = opened(tmp_path, column="words", picture_column="file")
    assert said(samples) == ["green, and\nplain"]
    assert opened(tmp_path / "metadata.csv", column="words", picture_column="file").length == 1
    with pytest.raises(DataError, match=r"no column 'text', but 'file', 'words', 'year'"):
        opened(tmp_path, picture_column="file")


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({}, "there is no column 'file_name'"),
        ("nonsense", "needs JSON with file_name and text"),
        ("[1]", "needs JSON with file_name and text"),
        ("[" * 100_000, "needs JSON with file_name and text"),
        ({"file_name": "c.png", "text": "x"}, "there is no picture 'c.png'"),
        ({"file_name": "../a.png", "text": "x"}, "lies outside the folder"),
        ({"file_name": "/etc/passwd", "text": "x"}, "lies outside the folder"),
        ({"file_name": "a\0.png", "text": "x"}, "is not the name of a file"),
        ({"file_name": "a.png", "text": "x\0y"}, "has a NUL character"),
        ({"file_name": "a.png", "text": "\ud800"}, "not valid Unicode"),
        ({"file_name": "a.png", "text": 3}, "a text or a list of texts, found '3'"),
        ({"file_name": "a.png", "text": "x" * 70_000}, "has 70000 bytes"),
    ],
)
def test_a_wrong_line_of_metadata_is_named(tmp_path: Path, row: object, wrong: str) -> None:
    picture(tmp_path / "a.png")
    described(tmp_path, row)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert wrong in str(caught.value)
    assert "line 1" in str(caught.value)


def test_a_picture_that_metadata_name_twice_or_not_at_all(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    described(tmp_path, {"file_name": "a.png", "text": "x"})
    assert opened(tmp_path).source.notes == ["1 pictures are not named by metadata.jsonl, first b.png."]
    described(tmp_path, {"file_name": "a.png", "text": "x"}, "", {"file_name": "./a.png", "text": "y"})
    with pytest.raises(DataError, match=r"line 3: '\./a\.png' is named on line 1, too"):
        opened(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(DataError, match=r"both metadata\.jsonl and metadata\.csv"):
        opened(tmp_path)


def test_pictures_without_captions_are_counted_before_training(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", text="  ")
    picture(tmp_path / "c.png", text="c")
    assert opened(tmp_path).without_caption() == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"2 pictures in .* have no caption, first 'a\.png'"):
        open_samples(DataConfig(source=str(tmp_path), size=16))


def test_captions_that_contradict_each_other_or_are_no_text(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", text="a")
    (tmp_path / "a.caption").write_text("a ")
    assert said(opened(tmp_path)) == ["a"]
    (tmp_path / "a.caption").write_text("b")
    with pytest.raises(DataError, match=r"a\.txt and a\.caption say different things"):
        opened(tmp_path)
    (tmp_path / "a.caption").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.caption is not UTF-8"):
        opened(tmp_path)
    (tmp_path / "a.caption").write_bytes(b"x" * 70_000)
    with pytest.raises(DataError, match="that is no caption"):
        opened(tmp_path)


def test_a_symlink_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside/a.png", text="a")
    folder = tmp_path / "set"
    picture(folder / "b.png", text="b")
    (folder / "c.png").symlink_to("b.png")
    (folder / "c.txt").write_text("the same picture")
    assert opened(folder).length == 2
    (folder / "d.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"d\.png is a symlink that leaves"):
        opened(folder)
    (folder / "d.png").unlink()
    (folder / "inner").symlink_to(outside.parent)
    with pytest.raises(DataError, match=r"inner is a symlink that leaves"):
        opened(folder)


def test_unreadable_pictures_are_named_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(40):
        picture(tmp_path / f"{number:02d}.png", text=str(number))
    (tmp_path / "07.png").write_bytes((tmp_path / "08.png").read_bytes()[:60])
    (tmp_path / "09.png").write_text("not a picture")
    with caplog.at_level(logging.WARNING):
        samples = open_samples(DataConfig(source=str(tmp_path), size=16))
    assert "2 pictures could not be read and were left out: 07.png: cannot be read" in caplog.text
    assert [each.name for each in samples.left_out] == ["07.png", "09.png"]
    assert samples.length == 38
    assert samples.captions([6, 7], [0, 0]) == ["6", "8"]
    with pytest.raises(DataError, match=r"2 of 40 pictures in .* cannot be read, more than 4% .*First 07\.png"):
        open_samples(DataConfig(source=str(tmp_path), size=16, unreadable=0.04))
    with pytest.raises(DataError, match="holds 38 samples"):
        open_samples(DataConfig(source=str(tmp_path), size=16, pool=39))
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        open_samples(DataConfig(source=str(tmp_path), size=16, unreadable=2))


def test_a_picture_that_vanishes_during_a_run_is_named(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", text="a")
    samples = opened(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png could be read when the run began, but not now"):
        samples.pictures([0])


def test_a_run_says_at_its_end_what_it_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(20):
        picture(tmp_path / f"set/{number:02d}.png", text=f"picture {number}")
    (tmp_path / "set/03.png").write_bytes(b"broken")
    config = tmp_path / "run.toml"
    config.write_text(
        f'[run]\noutput = "{tmp_path}/run"\nsteps = 1\nbatch = 2\n[data]\nsource = "{tmp_path}/set"\nsize = 32\n'
        "[network]\nhidden_size = 16\nintermediate_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n"
        "vocab_size = 520\n[loss]\nclaims = 0.0\ncontrastive = 1.0\n"
    )
    with caplog.at_level(logging.WARNING):
        assert run_training("text", config) == 1
    said_so = [message for message in caplog.messages if message.startswith("1 pictures could not be read")]
    assert len(said_so) == 2
    assert "03.png: is not a PNG" in said_so[-1]


def test_what_is_no_set_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        open_samples(DataConfig(source=str(tmp_path), size=16))
    with pytest.raises(DataError, match="neither 'world' nor a folder"):
        open_samples(DataConfig(source=str(tmp_path / "absent"), size=16))
    with pytest.raises(ConfigError, match="multiple of 8"):
        open_samples(DataConfig(size=17))
    with pytest.raises(DataError, match="NUL"):
        read_source("a\0b")
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is compressed"):
        read_source(str(tmp_path / "set.zip"))
    (tmp_path / "set.bin").write_bytes(b"")
    with pytest.raises(DataError, match="is no set of pictures"):
        read_source(str(tmp_path / "set.bin"))
    picture(tmp_path / "a.png")
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(DataError, match="holds pictures and shards"):
        read_source(str(tmp_path))


def test_the_identity_changes_with_the_pictures_and_how_they_are_cut(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", text="a")
    one, again, larger = opened(tmp_path), opened(tmp_path), opened(tmp_path, size=64)
    picture(tmp_path / "a.png", BLUE, text="a")
    other = opened(tmp_path)
    assert one.identity == again.identity
    assert len({one.identity, larger.identity, other.identity}) == 3


def test_the_world_gives_the_scenes_of_its_seed() -> None:
    samples = World(DataConfig(seed=4, size=32))
    expected = [scene(4, 2), scene(4, 9)]
    assert samples.scenes([2, 9]) == expected
    assert torch.equal(samples.pictures([2, 9]), render(expected, 32))
    assert samples.captions([2], [5]) == [caption(expected[0], np.random.default_rng(5)).text]
    assert shown(samples, 3) == [0, 1, 2]
    assert shown(World(DataConfig(pool=2)), 3) == [0, 1, 0]
