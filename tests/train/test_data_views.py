"""What is seen of a picture: turned upright, in its bucket, at the place that the draw chooses."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from set_maker import BLUE, GREEN, RED, colours, encoded, opened, picture, said

from sfumato.errors import DataError
from sfumato.train.data import PictureSet
from sfumato.train.data.alike import near_pairs, same_bytes, thumbprint
from sfumato.train.data.buckets import Fit
from sfumato.train.data.pixels import view


def saved(path: Path, picture: Image.Image, **settings: object) -> None:
    picture.save(path, **settings)
    path.with_suffix(".txt").write_text(path.stem)


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, each from 0 by steps of 1."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8))


def configured(folder: Path, *keys: str) -> PictureSet:
    """The pictures in a folder under these keys of a dataset configuration."""
    text = f'[general]\nenable_bucket = true\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{folder}"\n'
    path = folder.parent / "set.toml"
    path.write_text(text.replace("[general]\n", "[general]\n" + "\n".join(keys) + "\n"))
    return opened(path)


def test_pictures_of_every_mode_become_the_colours_that_they_show(tmp_path: Path) -> None:
    square = Image.new("RGB", (32, 32), RED)
    saved(tmp_path / "a-palette.png", square.convert("P"))
    saved(tmp_path / "b-16bit.png", Image.fromarray(np.full((32, 32), 65_535, np.uint16)))
    saved(tmp_path / "c-alpha.png", Image.new("RGBA", (32, 32), (0, 0, 255, 0)))
    saved(tmp_path / "d-cmyk.jpg", Image.new("CMYK", (32, 32), (0, 0, 0, 255)), quality=100)
    saved(tmp_path / "e-grey.bmp", Image.new("L", (32, 32), 128))
    saved(tmp_path / "f-animation.gif", square, save_all=True, append_images=[Image.new("RGB", (32, 32), BLUE)])
    samples = opened(tmp_path)
    assert samples.left_out == []
    white = (255, 255, 255)
    assert colours(samples) == [RED, white, white, (0, 0, 0), (128, 128, 128), RED]


def test_orientation_counts_for_the_bucket_and_the_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the file's left edge is the top
    lying = Image.new("RGB", (768, 384), BLUE)
    lying.paste(RED, (0, 0, 384, 384))
    saved(tmp_path / "a.png", lying, exif=exif)
    samples = opened(tmp_path, size=512)
    assert samples.upright(0) == (384, 768)
    pixels = samples.in_bucket([0])
    assert pixels.shape == (1, 3, 704, 320)
    assert torch.equal(pixels[0, :, 10, 100], torch.tensor([1.0, -1.0, -1.0]))
    assert torch.equal(pixels[0, :, -10, 100], torch.tensor([-1.0, -1.0, 1.0]))


def test_a_picture_of_its_buckets_size_is_shown_byte_for_byte(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", ramp(128, 128))
    pixels = opened(tmp_path, size=128).in_bucket([0])
    assert torch.equal(
        ((pixels[0] + 1) * 127.5).round().byte(), torch.from_numpy(np.array(ramp(128, 128)).transpose(2, 0, 1))
    )


def test_the_middle_is_cut_unless_a_draw_and_the_source_choose_another_place(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    saved(folder / "a.png", ramp(200, 128))
    middle = configured(folder, "resolution = 128", "min_bucket_reso = 128", "max_bucket_reso = 128")
    assert not middle.varies
    assert middle.view(0, draw=5).corner == middle.view(0).corner == (36, 0)
    assert int(((middle.in_bucket([0])[0, 0, 0, 0] + 1) * 127.5).round()) == 36
    keys = ("resolution = 128", "min_bucket_reso = 128", "max_bucket_reso = 128", "random_crop = true")
    varied = configured(folder, *keys)
    assert varied.varies
    places = [varied.view(0, draw).corner[0] for draw in range(400)]
    assert (min(places), max(places)) == (0, 72)
    assert places == [varied.view(0, draw).corner[0] for draw in range(400)]
    assert varied.view(0).corner == (36, 0)
    first = ((varied.in_bucket([0, 0], [1, 2])[:, 0, 0, 0] + 1) * 127.5).round().tolist()
    assert first == [places[1], places[2]]


def test_a_mirrored_view_is_the_mirror_of_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    saved(folder / "a.png", ramp(128, 128))
    samples = configured(folder, "resolution = 128", "min_bucket_reso = 128", "flip_aug = true")
    plain, mirrored = samples.in_bucket([0, 1])
    assert torch.equal(plain.flip(-1), mirrored)
    assert samples.length == 2


def test_a_picture_as_long_as_may_be_is_cut_without_being_scaled_whole(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", Image.new("RGB", (16_000, 1), GREEN))
    assert colours(opened(tmp_path, size=64)) == [GREEN]


def test_samples_of_a_bucket_are_read_together(tmp_path: Path) -> None:
    shapes = [(64, 64), (96, 48), (48, 96), (64, 60), (100, 50)]
    for number, size in enumerate(shapes):
        saved(tmp_path / f"{number}.png", Image.new("RGB", size, BLUE))
    samples = opened(tmp_path, size=64)
    for size in {samples.bucket(index) for index in range(5)}:
        alike = [index for index in range(5) if samples.bucket(index) == size]
        assert samples.in_bucket(alike, alike).shape == (len(alike), 3, *size[::-1])
    with pytest.raises(DataError, match="Samples of 3 buckets"):
        samples.in_bucket([0, 1, 2])
    assert samples.pictures([0, 1, 2]).shape == (3, 3, 64, 64)


def test_a_bomb_is_left_out_by_its_header(tmp_path: Path) -> None:
    content = bytearray(encoded(size=(1, 1)))
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # the header says 3.6 billion pixels
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    picture(tmp_path / "a.png", text="a")
    samples = opened(tmp_path)
    assert said(samples) == ["a"]
    assert "60000x60000 pixels" in samples.left_out[0].reason or "too large" in samples.left_out[0].reason


def test_views_of_a_picture_that_fits_have_no_room_to_move() -> None:
    lies = Fit((64, 64), (64, 64))
    assert view(lies, draw=9) == view(lies)


def noise(seed: int, side: int = 64) -> Image.Image:
    """A smooth random picture."""
    cells = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def test_prints_find_what_was_scaled_and_compressed_and_nothing_else() -> None:
    pictures = [noise(seed) for seed in range(40)]
    compressed = io.BytesIO()
    pictures[7].resize((200, 200)).save(compressed, "JPEG", quality=60)
    copies = [pictures[3].resize((100, 100)), Image.open(compressed), pictures[5].transpose(Image.Transpose.ROTATE_90)]
    recoloured = Image.merge("RGB", pictures[9].split()[::-1])
    prints = [thumbprint(each.convert("RGB")) for each in [*pictures, *copies, recoloured]]
    assert sorted(near_pairs(prints)) == [(3, 40), (7, 41)]


def test_every_near_pair_is_found_once_whatever_bits_differ() -> None:
    rng = np.random.default_rng(0)
    base = thumbprint(noise(1))
    prints, expected = [], []
    for number in range(100):
        bits = int(rng.integers(2**63))
        flipped = bits
        for bit in rng.choice(64, number % 4, replace=False):
            flipped ^= 1 << int(bit)
        prints += [type(base)(bits, base.thumb), type(base)(flipped, base.thumb)]
        expected.append((2 * number, 2 * number + 1))
    assert sorted(near_pairs(prints)) == expected
    assert list(near_pairs([])) == []


def test_files_of_the_same_bytes() -> None:
    assert same_bytes([b"a", b"b", b"a", b"c", b"b", b"a"]) == [(0, 2, 5), (1, 4)]
