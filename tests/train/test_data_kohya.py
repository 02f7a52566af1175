"""kohya's layouts: folders named 10_name, and dataset configurations, level by level."""

import json
from pathlib import Path

import pytest
from PIL import Image
from set_maker import BLUE, GREEN, GREY, RED, colours, opened, picture, said

from sfumato.errors import ConfigError, DataError
from sfumato.train.config import DataConfig
from sfumato.train.data import open_samples, read_source
from sfumato.train.data.buckets import BucketRules
from sfumato.train.data.kohya_settings import read_settings


def settings(folder: Path, text: str, name: str = "set.toml") -> Path:
    path = folder / name
    path.write_text(text.replace("HERE", str(folder)), encoding="utf-8")
    return path


ONE = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "HERE/a"\nclass_tokens = "sks cat"\n'


def test_folders_are_repeated_and_name_what_has_no_caption(tmp_path: Path) -> None:
    picture(tmp_path / "3_sks cat/a.png", RED)
    picture(tmp_path / "3_sks cat/b.png", GREEN, text="a green cat\nsecond line")
    picture(tmp_path / "1_a_dog/c.png", BLUE)
    samples = opened(tmp_path)
    assert samples.source.kind == "kohya folders"
    assert said(samples) == ["a_dog", *["sks cat"] * 3, *["a green cat"] * 3]
    assert colours(samples) == [BLUE, RED, RED, RED, GREEN, GREEN, GREEN]
    assert [samples.first_alike(index) for index in range(7)] == [0, 1, 1, 1, 4, 4, 4]


def test_a_picture_beside_the_named_folders_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "3_cat/a.png", text="a")
    picture(tmp_path / "b.png", text="b")
    with pytest.raises(DataError, match=r"folders such as 3_cat, but b\.png lies outside"):
        opened(tmp_path)


def test_folders_that_are_repeated_no_times(tmp_path: Path) -> None:
    picture(tmp_path / "0_cat/a.png")
    with pytest.raises(DataError, match="repeated 0 times"):
        opened(tmp_path)


def test_the_lower_level_wins_key_by_key(tmp_path: Path) -> None:
    path = settings(
        tmp_path,
        """
        [general]
        shuffle_caption = true
        keep_tokens = 1
        num_repeats = 2
        resolution = 256
        enable_bucket = true
        bucket_no_upscale = true
        batch_size = 4

        [[datasets]]
        resolution = [512, 640]
        keep_tokens = 2
        bucket_reso_steps = 32
        [[datasets.subsets]]
        image_dir = "HERE/a"
        keep_tokens = 3
        shuffle_caption = false
        caption_extension = ".caption"
        [[datasets.subsets]]
        image_dir = "HERE/b"
        flip_aug = true
        caption_dropout_rate = 0.25

        [[datasets]]
        enable_bucket = false
        [[datasets.subsets]]
        image_dir = "HERE/c"
        num_repeats = 5
        """,
    )
    (a, b, c), notes = read_settings(path)
    groups = [a.group, b.group, c.group]
    assert [group.words.keep for group in groups] == [3, 2, 1]
    assert [group.words.shuffle for group in groups] == [False, True, True]
    assert [group.repeats for group in groups] == [2, 2, 5]
    assert [group.resolution for group in groups] == [(512, 640), (512, 640), (256, 256)]
    assert groups[1].buckets == BucketRules(smallest=256, largest=1024, step=32, upscale=False)
    assert groups[2].buckets is None
    assert (groups[1].flip, groups[1].words.dropout) == (True, 0.25)
    assert (a.caption_suffixes, b.caption_suffixes) == ((".caption",), (".txt", ".caption"))
    assert notes == ["batch_size is not taken from the dataset configuration: run.batch says it."]


def test_pictures_and_captions_of_a_configuration(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png", RED)
    picture(tmp_path / "a/2.png", GREEN, text="green, tags")
    picture(tmp_path / "a/deeper/3.png", BLUE)
    samples = opened(settings(tmp_path, ONE + 'num_repeats = 2\ncaption_prefix = "photo of"\n'))
    assert said(samples) == ["photo of sks cat"] * 2 + ["photo of green, tags"] * 2
    assert colours(samples) == [RED, RED, GREEN, GREEN]
    same = {"datasets": [{"subsets": [{"image_dir": str(tmp_path / "a"), "class_tokens": "x", "keep_tokens": None}]}]}
    assert said(opened(settings(tmp_path, json.dumps(same), "set.json"))) == ["x", "green, tags"]


def test_without_words_and_class_the_picture_has_no_caption(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png")
    path = settings(tmp_path, ONE.replace("sks cat", ""))
    assert len(opened(path).without_caption()) == 1
    with pytest.raises(DataError, match="have no caption"):
        open_samples(DataConfig(source=str(path), size=32))


def test_mirrored_samples_are_half_of_those_that_may_be(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = picture(tmp_path / name / "1.png", RED, text=name)
        mark(path)
    text = f'{ONE}num_repeats = 3\nflip_aug = true\n[[datasets.subsets]]\nimage_dir = "HERE/b"\n'
    samples = opened(settings(tmp_path, text))
    left = [bool(pixels[1, 16, 2] > 0) for pixels in samples.pictures(range(samples.length))]
    assert said(samples) == ["a"] * 6 + ["b"] * 2
    assert left == [True, False] * 3 + [True, True]
    assert [samples.first_alike(index) for index in range(8)] == [0, 1, 0, 1, 0, 1, 6, 6]


def mark(path: Path) -> None:
    """Makes the left part of a picture white."""
    with Image.open(path) as opened_picture:
        changed = opened_picture.copy()
    changed.paste((255, 255, 255), (0, 0, 8, 32))
    changed.save(path)


def test_pictures_of_the_class_are_repeated_beside_those_of_the_subject(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"a/{number}.png", RED)
    for number in range(3):
        picture(tmp_path / f"b/{number}.png", GREY)
    text = f'{ONE}num_repeats = 2\n[[datasets.subsets]]\nimage_dir = "HERE/b"\nclass_tokens = "cat"\nis_reg = true\n'
    samples = opened(settings(tmp_path, text))
    assert colours(samples) == [RED] * 8 + [GREY] * 9
    assert [samples.group(index).regularises for index in (0, 8)] == [False, True]
    assert samples.source.notes == ["Dataset 1: 3 regularisation samples are repeated 3 times beside 8."]


def test_fine_tuning_metadata_name_pictures_by_stem_or_path(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png", RED)
    picture(tmp_path / "a/in/2.png", GREEN)
    picture(tmp_path / "a/3.png", BLUE)
    table = {
        "1": {"caption": "red", "tags": "x, y"},
        "in/2.png": {"tags": "z"},
        str(tmp_path / "a/3.png"): {"caption": "blue", "train_resolution": [512, 512]},
    }
    (tmp_path / "meta.json").write_text(json.dumps(table))
    text = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "HERE/a"\nmetadata_file = "HERE/meta.json"\n'
    samples = opened(settings(tmp_path, text))
    assert said(samples) == ["red, x, y", "z", "blue"]
    assert colours(samples) == [RED, GREEN, BLUE]
    for key, wrong in (("nine", "no pictures of this name"), ("../meta.png", "outside"), ("a\0", "NUL")):
        picture(tmp_path / "meta.png")
        (tmp_path / "meta.json").write_text(json.dumps({key: {"caption": "x"}}))
        with pytest.raises(DataError, match=wrong):
            opened(tmp_path / "set.toml")


SUBSET = ONE.replace("[[datasets]]\n", "", 1)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (ONE + "shufle_caption = true", r"dataset 1, subset 1: unknown key 'shufle_caption'; did you mean 'shuffle_c"),
        ("[general]\nimage_dir = 'x'\n" + ONE, r"\[general\]: unknown key 'image_dir'"),
        ("[[datasets]]\nis_reg = true\n" + SUBSET, "dataset 1: unknown key 'is_reg'"),
        (ONE + "resolution = 512", "subset 1: unknown key 'resolution'"),
        (ONE + "color_aug = true", r"color_aug = True is not supported; remove it, or set it to false"),
        (ONE + "face_crop_aug_range = [1.0, 2.0]", "face_crop_aug_range = .* is not supported; remove it"),
        ("[general]\ncaption_dropout_every_n_epochs = 2\n" + ONE, "every_n_epochs = 2 is not supported"),
        (ONE + 'num_repeats = "2"', "num_repeats must be int, found '2'"),
        (ONE + "num_repeats = true", "num_repeats must be int, found True"),
        (ONE + "flip_aug = 1", "flip_aug must be bool, found 1"),
        (ONE + "num_repeats = -1", "num_repeats is -1; it must be at least 0"),
        (ONE + "caption_dropout_rate = 1.5", "caption_dropout_rate is 1.5; it is a share"),
        (ONE + "caption_extension = 'txt'", "caption_extension 'txt' needs its dot"),
        ("[[datasets]]\nresolution = [512]\n" + SUBSET, r"resolution is a whole number or \[width, height\]"),
        ("[general]\nresolution = 128\nenable_bucket = true\n" + ONE, "sides from 256 to 1024, but the resolution"),
        ("[general]\nenable_bucket = true\nbucket_reso_steps = 20\n" + ONE, "multiples of 8"),
        (ONE + "[[datasets.subsets]]\nmetadata_file = 'x.json'", "with and without metadata_file do not mix"),
        ("[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'x'\nis_reg = true", "is_reg does not go with metadata"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 1", "needs image_dir"),
        ("[[datasets]]\n", r"\[\[datasets.subsets\]\] must be given"),
        ("[general]\n", r"\[\[datasets\]\] must be given"),
        ("datasets = 3", "datasets must be list"),
        ("extra = 3\n" + ONE, "unknown key 'extra'"),
        ("[", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        read_source(str(settings(tmp_path, text)))


def test_what_is_switched_off_may_stand_there(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png")
    off = "color_aug = false\ntoken_warmup_step = 0\nalpha_mask = false\ncaption_dropout_every_n_epochs = 0\n"
    assert opened(settings(tmp_path, ONE + off)).length == 1


def test_a_missing_folder_and_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image_dir .* is not a folder"):
        read_source(str(settings(tmp_path, ONE)))
    with pytest.raises(ConfigError, match="is not JSON"):
        read_source(str(settings(tmp_path, "{", "set.json")))
    with pytest.raises(ConfigError, match="must hold"):
        read_source(str(settings(tmp_path, "[]", "set.json")))


def test_a_configuration_decides_about_sizes_itself(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png", size=(64, 16))
    for lines, size in (
        ("", (32, 32)),
        ("[general]\nresolution = [48, 24]\n", (48, 24)),
        ("[general]\nresolution = 32\nenable_bucket = true\nmin_bucket_reso = 16\nbucket_reso_steps = 8\n", (64, 16)),
    ):
        path = settings(tmp_path, lines + ONE)
        for buckets in (False, True):
            samples = open_samples(DataConfig(source=str(path), size=32, buckets=buckets))
            assert samples.bucket(0) == size
            assert samples.in_bucket([0]).shape == (1, 3, *size[::-1])
    path = settings(tmp_path, "[general]\nresolution = 20\n" + ONE)
    with pytest.raises(ConfigError, match="both must be multiples of 8"):
        open_samples(DataConfig(source=str(path), size=32))
