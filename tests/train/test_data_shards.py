"""Tar shards: random access by offset, and every way in which a shard can be damaged."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from set_maker import BLUE, GREEN, RED, colours, encoded, opened, picture, said, shard

from sfumato.errors import DataError
from sfumato.train.data import read_source


def test_pictures_and_captions_of_shards_in_a_folder_or_by_range(tmp_path: Path) -> None:
    first = {"a/0.png": encoded(RED), "a/0.txt": "red\n", "a/0.json": json.dumps({"text": "not this"})}
    second = {"1.JPG": encoded(GREEN, kind="JPEG"), "1.json": json.dumps({"text": ["green", "lawn"]})}
    shard(tmp_path / "set-00.tar", {**first, **second, "1.cls": "7"})
    shard(tmp_path / "set-01.tar", {"0.txt": "blue", "0.webp": encoded(BLUE, kind="WEBP"), "2.txt": "no picture"})
    samples = opened(tmp_path)
    assert samples.source.kind == "2 tar shards"
    assert said(samples, draw=1) == ["red", "lawn", "blue"]
    assert [max(range(3), key=colour.__getitem__) for colour in colours(samples)] == [0, 1, 2]
    assert samples.source.notes == ["1 keys without a picture (jpg, jpeg, png, webp) are passed over."]
    assert said(opened(tmp_path / "set-{00..01}.tar")) == said(samples)
    assert opened(tmp_path / "set-00.tar").length == 2


def test_a_name_longer_than_a_header_holds(tmp_path: Path) -> None:
    name = "folder/" + "long" * 40
    samples = opened(shard(tmp_path / "a.tar", {f"{name}.png": encoded(GREEN), f"{name}.txt": "found"}))
    assert (said(samples), colours(samples)) == (["found"], [GREEN])


def test_captions_under_another_name(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"0.png": encoded(), "0.json": '{"caption": "x", "url": "y"}'})
    assert said(opened(path, column="caption")) == ["x"]
    with pytest.raises(DataError, match=r"0\.json has no 'text', but 'caption', 'url'"):
        opened(path)


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ({"0.png": encoded(), "0.PNG": encoded()}, r"0\.PNG is there twice"),
        ({"0.png": encoded(), "0.jpg": encoded()}, "0 has 2 pictures"),
        ({"0.png": encoded(), "0.json": "{"}, r"0\.json cannot be read"),
        ({"0.png": encoded(), "0.json": "[]"}, "must be a JSON object"),
        ({"0.png": encoded(), "0.txt": b"\xff"}, r"0\.txt cannot be read"),
        ({"0.png": encoded(), "0.txt": "a\0b"}, "NUL"),
        ({"0.png": encoded(), "0.txt": "x" * 2_000_000}, "that is no caption"),
    ],
)
def test_what_is_wrong_in_a_shard_is_named(tmp_path: Path, members: dict[str, bytes | str], wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        opened(shard(tmp_path / "a.tar", members))


def test_a_damaged_shard_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar", {f"{n}.png": encoded(size=(64, 64)) for n in range(4)}).read_bytes()
    (tmp_path / "a.tar").unlink()
    path = tmp_path / "damaged.tar"
    path.write_bytes(whole[:700])  # within the first picture
    with pytest.raises(DataError, match=r"damaged\.tar.*(damaged|ends within)"):
        opened(path)
    path.write_bytes(whole[:1024] + b"x" * 512 + whole[1536:])  # the header of the second member
    with pytest.raises(DataError, match="damaged at byte 1024 of"):
        opened(path)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"damaged\.tar is no tar, or damaged"):
        opened(path)
    path.unlink()
    with pytest.raises(DataError, match="There is no shard"):
        opened(path)
    with pytest.raises(DataError, match="range of shards must go up"):
        opened(tmp_path / "{9..1}.tar")


def test_a_compressed_shard_is_named_as_such(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"0.png": encoded()}, "w:gz")
    with pytest.raises(DataError, match="compressed: unpack it"):
        opened(path)
    with pytest.raises(DataError, match="is compressed"):
        read_source(str(path.rename(tmp_path / "a.tar.gz")))


def test_links_and_sparse_members_are_never_followed(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    path = tmp_path / "set/a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        info = tarfile.TarInfo("1.png")
        info.size = len(encoded(BLUE))
        tar.addfile(info, io.BytesIO(encoded(BLUE)))
    assert colours(opened(path)) == [BLUE]


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    samples = opened(shard(tmp_path / "a.tar", {"0.png": b"nothing", "1.png": encoded(BLUE), "1.txt": "b"}))
    assert [each.name for each in samples.left_out] == ["a.tar/0.png"]
    assert said(samples) == ["b"]
