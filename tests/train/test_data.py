"""Data: folders of pictures with captions, and every way in which they can be wrong."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.errors import ConfigError, DataError
from sfumato.scenes.captions import caption
from sfumato.scenes.render import render
from sfumato.scenes.scene import scene
from sfumato.train.config import DataConfig
from sfumato.train.data import Folder, World, open_samples


def picture(path: Path, colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (32, 16)) -> None:
    Image.new("RGB", size, colour).save(path)


def test_a_caption_beside_each_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red field\n")
    picture(tmp_path / "b.jpg", (0, 0, 255))
    (tmp_path / "b.caption").write_text("a blue field")
    samples = Folder(DataConfig(source=str(tmp_path), size=16))
    assert samples.length == 2
    assert samples.captions([1, 0], [0, 0]) == ["a blue field", "a red field"]
    pixels = samples.pictures([0])
    assert pixels.shape == (1, 3, 16, 16)
    assert torch.equal(pixels[0, :, 8, 8], torch.tensor([1.0, -1.0, -1.0]))


def test_metadata_with_one_or_several_captions(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    rows = [{"file_name": "a.png", "text": "one"}, {"file_name": "b.png", "text": ["two", "zwei"]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    samples = Folder(DataConfig(source=str(tmp_path), size=16))
    assert samples.captions([0, 1, 1], [7, 4, 5]) == ["one", "two", "zwei"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{}", "needs JSON with file_name and text"),
        ("nonsense", "needs JSON with file_name and text"),
        ('{"file_name": "a.png", "text": ""}', "'a.png' has no caption"),
        ('{"file_name": "c.png", "text": "x"}', "there is no picture 'c.png'"),
        ('{"file_name": "../a.png", "text": "x"}', "lies outside the folder"),
    ],
)
def test_a_wrong_line_of_metadata_is_named(tmp_path: Path, line: str, said: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError) as caught:
        Folder(DataConfig(source=str(tmp_path), size=16))
    assert said in str(caught.value)
    assert "line 1" in str(caught.value)


def test_pictures_without_captions_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "b.txt").write_text("  ")
    with pytest.raises(DataError, match=r"2 pictures in .* have no caption, first 'a\.png'"):
        Folder(DataConfig(source=str(tmp_path), size=16))


def test_what_is_no_picture_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    (tmp_path / "a.txt").write_text("a caption")
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        Folder(DataConfig(source=str(tmp_path), size=16))


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        Folder(DataConfig(source=str(tmp_path), size=16))
    with pytest.raises(DataError, match="neither 'world' nor a folder"):
        open_samples(DataConfig(source=str(tmp_path / "absent"), size=16))
    with pytest.raises(ConfigError, match="multiple of 8"):
        open_samples(DataConfig(size=17))


def test_the_world_gives_the_scenes_of_its_seed() -> None:
    import numpy as np

    samples = World(DataConfig(seed=4, size=32))
    expected = [scene(4, 2), scene(4, 9)]
    assert samples.scenes([2, 9]) == expected
    assert torch.equal(samples.pictures([2, 9]), render(expected, 32))
    assert samples.captions([2], [5]) == [caption(expected[0], np.random.default_rng(5)).text]
