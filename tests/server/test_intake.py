"""Pictures of strangers: whatever they are, the answer is a picture or what is wrong with it, and soon."""

import io
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from sfumato.metadata import pixels_digest
from sfumato.opening import open_picture, to_kept, to_mask, to_rgb
from sfumato.server.decode import PIXELS, SIDE, read
from sfumato.server.intake import Intake
from sfumato.server.png import chunk, encode
from sfumato.server.problems import Problem

WRONG = (413, 415, 422)


def noise(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.frombytes(mode, size, values.tobytes())


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it is so large, with a few bytes of pixels."""
    said = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + said + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def with_chunk(kind: bytes, content: bytes) -> bytes:
    whole = saved(noise(), "PNG")
    return whole[:33] + chunk(kind, content) + whole[33:]  # after the header


def bad_files() -> Iterator[tuple[str, bytes]]:
    """Files that are no picture, or not one that is taken."""
    png, jpeg, webp = saved(noise(), "PNG"), saved(noise(), "JPEG"), saved(noise(), "WEBP", lossless=True)
    for percent in range(0, 100):
        yield f"png cut at {percent} %", png[: len(png) * percent // 100]
    for percent in range(0, 40, 4):
        yield f"jpeg cut at {percent} %", jpeg[: len(jpeg) * percent // 100]
        yield f"webp cut at {percent} %", webp[: len(webp) * percent // 100]
    for width, height in ((65_535, 65_535), (100_000, 1), (1, 100_000), (0, 5), (5, 0), (2**31, 2**31), (8000, 8000)):
        yield f"png of {width}x{height}", header(width, height)
    yield "png of unknown depth", header(5, 5, depth=7)
    yield "png of unknown colour", header(5, 5, colour=9)
    yield "png with a wrong checksum", png[:45] + bytes([png[45] ^ 255]) + png[46:]
    yield "png with another header's checksum", png[:20] + b"\xff" + png[21:]
    yield from {
        "gif": saved(noise().convert("P"), "GIF"),
        "bmp": saved(noise(), "BMP"),
        "tiff": saved(noise(), "TIFF"),
        "ico": saved(noise((16, 16)), "ICO"),
        "fits": b"SIMPLE  =                    T" + b" " * 3000,
        "psd": b"8BPS\0\1" + bytes(200),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "html": b"<html><script>alert(1)</script>",
        "pdf": b"%PDF-1.7\n" + png,
        "zip": b"PK\3\4" + png,
        "safetensors": struct.pack("<Q", 2) + b"{}",
        "one byte": b"\x89",
        "zeros": bytes(1000),
        "text": b"hello",
        "magic alone": b"\x89PNG\r\n\x1a\n",
        "jpeg's magic alone": b"\xff\xd8\xff\xe0",
        "webp's magic alone": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "webp of a riff in a riff": b"RIFF\x10\0\0\0WEBPRIFF\x10\0\0\0WEBP",
    }.items()


def odd_files() -> Iterator[tuple[str, bytes]]:
    """Files that may be read, or not, but do no harm."""
    png = saved(noise(), "PNG")
    bomb = zlib.compress(bytes(100_000_000), 9)
    yield "a text that unpacks to 100 MB", with_chunk(b"zTXt", b"parameters\0\0" + bomb)
    yield "a profile that unpacks to 100 MB", with_chunk(b"iCCP", b"x\0\0" + bomb)
    yield "an international text that unpacks to 100 MB", with_chunk(b"iTXt", b"parameters\0\1\0\0\0" + bomb)
    yield "pixels that unpack to 100 MB more", png[:33] + chunk(b"IDAT", bomb) + png[33:]
    yield "a text of 3 MB", with_chunk(b"tEXt", b"parameters\0" + b"x" * 3_000_000)
    yield "a thousand texts", png[:33] + b"".join(chunk(b"tEXt", b"k%d\0v" % n) for n in range(1000)) + png[33:]
    yield "png and a zip behind it", png + b"PK\3\4" + bytes(100)
    yield "png and html behind it", png + b"<script>alert(1)</script>"
    yield "deep json", with_chunk(b"tEXt", b"prompt\0" + b'{"a":' * 50_000)
    yield "our own record, damaged", with_chunk(b"tEXt", b'sfumato\0{"request": {"steps": "many"}}')
    frames = [noise((20, 20)) for _ in range(3)]
    yield "apng", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "animated webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "a broken profile", saved(noise(), "JPEG", icc_profile=b"no profile" * 20)
    yield "floats", saved(noise(), "JPEG", exif=b"Exif\0\0" + bytes(300))


def test_the_corpus_is_large_enough() -> None:
    assert len(list(bad_files())) + len(list(odd_files())) >= 150


def test_what_is_no_picture_is_refused_as_such_and_soon() -> None:
    for name, content in bad_files():
        started = time.monotonic()
        about, picture = read(content)
        assert picture is None, name
        assert about["problem"]["status"] in WRONG, name
        assert time.monotonic() - started < 2.0, name


def test_what_is_odd_does_no_harm() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in odd_files():
        started = time.monotonic()
        about, picture = read(content)
        assert picture is not None or about["problem"]["status"] in WRONG, name
        assert time.monotonic() - started < 2.0, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_only_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for kind in ("PNG", "WEBP"):
        _, picture = read(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert picture is not None
        assert abs(picture.convert("RGB").getpixel((4, 4))[0] - 255) < 8  # type: ignore[index]  # three channels


def modes() -> Iterator[tuple[str, bytes]]:
    palette = noise().convert("P")
    yield "grey", saved(noise(mode="L"), "PNG")
    yield "one bit", saved(noise(mode="L").convert("1"), "PNG")
    yield "grey and transparency", saved(noise(mode="LA"), "PNG")
    yield "colour", saved(noise(), "PNG")
    yield "colour and transparency", saved(noise(mode="RGBA"), "PNG")
    yield "palette", saved(palette, "PNG")
    yield "palette with a transparent colour", saved(palette, "PNG", transparency=3)
    yield "one transparent colour", saved(noise(), "PNG", transparency=(1, 2, 3))
    yield "sixteen bits", saved(Image.fromarray(np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16)), "PNG")
    yield "four inks", saved(noise(mode="CMYK"), "JPEG", quality=95)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "a profile", saved(noise(), "PNG", icc_profile=profile)


@pytest.mark.parametrize(("name", "content"), list(modes()), ids=[name for name, _ in modes()])
def test_what_is_kept_is_drawn_from_as_the_file_would_be(name: str, content: bytes) -> None:
    kept = to_kept(open_picture(content))
    assert kept.mode in ("L", "LA", "RGB", "RGBA")
    assert to_rgb(kept).tobytes() == to_rgb(open_picture(content)).tobytes()
    assert to_mask(kept).tobytes() == to_mask(open_picture(content)).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    upright = np.asarray(noise((6, 4)))
    turned = {  # what a camera that was held so has written: EXIF 2.3, tag 0x0112
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    _, picture = read(saved(Image.fromarray(np.ascontiguousarray(turned)), "PNG", exif=exif.tobytes()))
    assert picture is not None
    assert np.array_equal(np.asarray(picture), upright)


def test_a_ramp_of_sixteen_bits_keeps_its_order_and_its_values() -> None:
    ramp = np.linspace(0, 65_535, 4096).round().astype(np.uint16).reshape(16, 256)
    _, picture = read(saved(Image.fromarray(ramp), "PNG"))
    assert picture is not None
    values = np.asarray(picture.convert("L")).reshape(-1).astype(float)
    assert (np.diff(values) >= 0).all()
    assert np.abs(values - ramp.reshape(-1) / 257.0).max() <= 0.5 + 1e-9  # 65535 / 255 = 257


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_our_png_says_what_it_was_given(mode: str) -> None:
    picture = noise((33, 7), mode)
    width = picture.width * len(picture.getbands())
    rows = [picture.tobytes()[start : start + width] for start in range(0, width * 7, width)]
    again = Image.open(io.BytesIO(b"".join(encode(33, 7, mode, rows))))
    assert (again.mode, again.tobytes()) == (mode, picture.tobytes())


def test_the_child_answers_with_pixels_and_metadata_and_keeps_nothing_of_the_file(tmp_path: Path) -> None:
    intake = Intake(tmp_path, seconds=20)
    texts = PngInfo()
    texts.add_text("parameters", "a red house\nSteps: 20, Sampler: Euler a, Seed: 7, Hashes: x")
    picture = noise()
    decoded = intake.decode(saved(picture, "PNG", pnginfo=texts) + b"<script>alert(1)</script>")
    assert decoded.pixels == pixels_digest(picture)
    assert decoded.reading is not None and decoded.reading["request"]["seed"] == 7
    kept = decoded.place.read_bytes()
    assert Image.open(io.BytesIO(kept)).tobytes() == picture.tobytes()
    assert b"script" not in kept and b"Steps" not in kept
    decoded.place.unlink()
    for content, status in (
        (b"", 422),
        (b"hello", 415),
        (header(65_535, 65_535), 413),
        (saved(picture, "PNG")[:90], 422),
    ):
        with pytest.raises(Problem) as caught:
            intake.decode(content)
        assert caught.value.status == status
    assert list(tmp_path.iterdir()) == []


def test_the_child_imports_nothing_from_where_the_server_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    for path in (".", str(tmp_path)):
        monkeypatch.setenv("PYTHONPATH", path)
        assert Intake(tmp_path, seconds=20).decode(saved(noise(), "PNG")).width == 40


def test_a_child_that_lies_is_not_believed(tmp_path: Path) -> None:
    intake = Intake(tmp_path, seconds=20)
    for answer in (
        b"",
        b"no json\n",
        b'{"width": 4, "height": 4, "mode": "RGB", "reading": null}\n' + bytes(47),
        b'{"width": -4, "height": 4, "mode": "RGB", "reading": null}\n' + bytes(48),
        b'{"width": 4, "height": 4, "mode": "CMYK", "reading": null}\n' + bytes(64),
        b'{"width": %d, "height": 4, "mode": "L", "reading": null}\n' % (SIDE + 1),
        b'{"width": 16384, "height": 16384, "mode": "L", "reading": null}\n',
        b'{"width": 4}\n',
        b"[" * 100_000 + b"\n",
    ):
        with pytest.raises(Problem) as caught:
            intake._take(io.BytesIO(answer))
        assert caught.value.status == 422
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_largest_picture_that_is_taken_costs_half_a_gibibyte_at_most(tmp_path: Path) -> None:
    side = int(PIXELS**0.5) // 8 * 8
    content = saved(Image.new("RGBA", (side, side), "red"), "PNG")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    decoded = Intake(tmp_path, seconds=60).decode(content)
    assert (decoded.width, decoded.height) == (side, side)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{after / 1024:.0f} MiB (children before: {before / 1024:.0f} MiB)")
    assert after < 512 * 1024  # KiB
