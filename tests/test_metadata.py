"""Metadata: what is written is read back, through every container, and other tools' dialects are understood."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sfumato.errors import OutputError, PictureError
from sfumato.metadata import (
    Infotext,
    Provenance,
    describe,
    describe_texts,
    format_infotext,
    make_record,
    parse_infotext,
    pixels_digest,
    save,
    stamp,
)
from sfumato.request import Request

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
awkward = st.lists(
    st.sampled_from(
        [
            *("Negative prompt:", "Steps: 20, Sampler: x, Seed: 1", "\n", " ", "a", ",", ":", '"', "\\", "{", "["),
            *("é", "\r", "\u2028", "Exact prompt: ", "Hashes: {"),
        ]
    )
).map("".join)
keys = st.from_regex(r"[A-Za-z0-9][\w \-/]*[\w\-/]", fullmatch=True).filter(lambda key: not key.startswith("Exact"))


@given(texts | awkward, texts | awkward, st.dictionaries(keys, texts | awkward, min_size=3, max_size=6))
@example(" a", "", {"Steps": "20", "Sampler": "x", "Seed": "1"})
@example("a\nSteps: 20, Sampler: x, Seed: 1", "Negative prompt: b", {"ab": "", "cd": '"', "ef": "{}"})
def test_an_infotext_reads_back_as_it_was(prompt: str, negative: str, parameters: dict[str, str]) -> None:
    info = Infotext(prompt, negative, parameters)
    assert parse_infotext(format_infotext(info)) == info


@given(texts | awkward)
def test_every_text_is_an_infotext(text: str) -> None:
    parse_infotext(text)


def test_an_infotext_of_a1111_is_read() -> None:
    info = parse_infotext(
        "a (red:1.2) house,\non grass\nNegative prompt: blurry, bad\nSteps: 20, Sampler: DPM++ 2M, "
        'Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, Model: v1-5, Lora hashes: "a: 1234, b: '
        '5678", Hashes: {"vae": "x", "model": "y"}, Version: v1.10.1'
    )
    assert info.prompt == "a (red:1.2) house,\non grass"
    assert info.negative_prompt == "blurry, bad"
    assert info.parameters["Lora hashes"] == "a: 1234, b: 5678"
    assert info.parameters["Hashes"] == '{"vae": "x", "model": "y"}'
    assert info.parameters["Version"] == "v1.10.1"
    assert len(info.parameters) == 10


def test_fewer_than_three_parameters_belong_to_the_prompt() -> None:
    assert parse_infotext("a cat\nSteps: 20, Seed: 1") == Infotext("a cat\nSteps: 20, Seed: 1")
    with pytest.raises(ValueError, match="at least three"):
        format_infotext(Infotext("a cat", "", {"Steps": "20", "Seed": "1"}))


@pytest.mark.parametrize("unit", ['a: ",', "[", "Hashes: [1,", "ab ", 'ab: "x"', "ab: 1,", "\nNegative prompt:", '"\\'])
def test_reading_an_infotext_is_linear(unit: str) -> None:
    def seconds(length: int) -> float:
        start = time.process_time()  # whatever else the machine does meanwhile
        parse_infotext(unit * (length // len(unit)))
        return time.process_time() - start

    assert seconds(500_000) < 2.0  # a quadratic reader takes minutes


REQUEST = Request(
    prompt=["a red house, “quoted”", "a blue ball\nNegative prompt: none"],
    negative_prompt="blurry: ünïcode, 日本語",
    model="some/model",
    seed=7,
    steps=20,
    guidance=7.5,
    sampler="dpmpp_2m_karras",
    width=24,
    height=16,
    count=2,
    batch=1,
)
PROVENANCE = Provenance(
    model="some/model",
    family="sd15",
    hashes={"unet": "ab" * 32},
    environment={"sfumato": "0.1.0", "torch": "2.13.0", "threads": 2},
    sampling={"sampler": "dpmpp_2m", "spacing": "karras"},
)


def stamped(index: int = 3) -> Image.Image:
    picture = Image.effect_noise((24, 16), 80).convert("RGB")
    stamp(picture, make_record(REQUEST, index, picture, PROVENANCE))
    return picture


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp"])
def test_a_request_comes_back_out_of_its_picture(tmp_path: Path, suffix: str) -> None:
    picture = stamped()
    found = describe(save(picture, tmp_path / f"a{suffix}"))
    assert found.tool == "sfumato"
    assert found.request == REQUEST
    assert found.prompt == REQUEST.prompts[1]
    assert found.negative_prompt == REQUEST.negative_prompt
    assert found.settings["seed"] == 10
    assert found.record is not None
    assert found.record["pixels"]["sha256"] == pixels_digest(picture)
    assert found.record["model"]["hashes"] == PROVENANCE.hashes


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_readers_of_a1111_text_find_everything_in_ours(tmp_path: Path, suffix: str) -> None:
    path = save(stamped(1), tmp_path / f"a{suffix}")
    with Image.open(path) as opened:
        if suffix == ".png":
            text = opened.text["parameters"]  # type: ignore[attr-defined]
        else:
            comment = opened.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0"
            text = comment[8:].decode("utf-16-be")
    info = parse_infotext(text)
    assert info.prompt == REQUEST.prompts[0]
    assert info.parameters["Sampler"] == "DPM++ 2M"
    assert info.parameters["Schedule type"] == "Karras"
    assert info.parameters["Seed"] == "8"
    assert info.parameters["Size"] == "24x16"


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_png_and_webp_keep_the_pixels(tmp_path: Path, suffix: str) -> None:
    picture = stamped()
    with Image.open(save(picture, tmp_path / f"a{suffix}")) as opened:
        assert opened.convert("RGB").tobytes() == picture.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_without_metadata_nothing_is_left_in_the_file(tmp_path: Path, suffix: str) -> None:
    path = save(stamped(), tmp_path / f"a{suffix}", metadata=False)
    assert describe(path).tool == ""
    assert b"house" not in path.read_bytes()
    assert b"sfumato" not in path.read_bytes()


def test_saving_overwrites_nothing_unless_asked(tmp_path: Path) -> None:
    path = save(stamped(), tmp_path / "a.png")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        save(Image.new("RGB", (16, 16)), path)
    assert path.read_bytes() == before
    save(Image.new("RGB", (16, 16)), path, overwrite=True)
    assert path.read_bytes() != before
    assert [found.name for found in tmp_path.iterdir()] == ["a.png"]


def test_saving_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.png, \.jpg or \.webp"):
        save(stamped(), tmp_path / "a.bmp")
    with pytest.raises(OutputError, match="nowhere"):
        save(stamped(), tmp_path / "nowhere" / "a.png")
    picture = stamped()
    picture.info["parameters"] = "x" * 70_000
    with pytest.raises(OutputError, match="metadata"):
        save(picture, tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["4", 0], "positive": ["10", 0], "negative": ["10", 1], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": ["11", 0], "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["12", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "watermark", "clip": ["4", 1]}},
    "10": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
    "11": {"class_type": "PrimitiveInt", "inputs": {"value": 768}},
    "12": {"class_type": "PrimitiveString", "inputs": {"value": "a bottle"}},
}  # fmt: skip


def test_a_comfyui_graph_is_followed_to_its_prompts() -> None:
    found = describe_texts({"prompt": json.dumps(GRAPH), "workflow": "{}"})
    assert found.tool == "ComfyUI"
    assert (found.prompt, found.negative_prompt) == ("a bottle", "watermark")
    assert found.settings == {
        "seed": 42, "steps": 20, "guidance": 8.0, "sampler": "euler", "spacing": "normal", "strength": 1.0,
        "model": "v1-5.safetensors", "width": 512, "height": 768,
    }  # fmt: skip


def test_a_comfyui_graph_with_a_loop_ends() -> None:
    loop = {**GRAPH, "6": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["6", 0]}}}
    loop["11"] = {"class_type": "PrimitiveInt", "inputs": {"value": ["11", 0]}}
    assert describe_texts({"prompt": json.dumps(loop)}).prompt == ""


OTHERS = [
    (
        "InvokeAI",
        {
            "invokeai_metadata": json.dumps(
                {
                    "positive_prompt": "a cat",
                    "negative_prompt": "a dog",
                    "cfg_scale": 7.5,
                    "steps": 30,
                    "seed": 5,
                    "scheduler": "euler_a",
                    "model": {"name": "v1-5", "hash": "x"},
                }
            )
        },
    ),
    (
        "InvokeAI",
        {
            "sd-metadata": json.dumps(
                {"image": {"prompt": [{"prompt": "a cat", "weight": 1}], "steps": 30, "cfg_scale": 7.5, "seed": 5}}
            )
        },
    ),
    ("InvokeAI", {"Dream": '"a cat" -s 30 -S 5 -W 512 -H 512 -C 7.5 -A k_lms'}),
    (
        "NovelAI",
        {
            "Software": "NovelAI",
            "Description": "a cat",
            "Comment": json.dumps({"steps": 30, "scale": 7.5, "seed": 5, "uc": "a dog", "sampler": "k_euler"}),
        },
    ),
    ("AUTOMATIC1111", {"parameters": "a cat\nSteps: 30, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Size: 512x768"}),
    (
        "SwarmUI",
        {"parameters": '{"sui_image_params": {"prompt": "a cat", "steps": 30, "cfgscale": 7.5, "seed": 5}}'},
    ),
    ("Fooocus", {"parameters": json.dumps({"prompt": "a cat", "steps": 30, "guidance_scale": 7.5, "seed": 5})}),
    (
        "Easy Diffusion",
        {
            "prompt": "a cat",
            "seed": "5",
            "num_inference_steps": "30",
            "guidance_scale": "7.5",
            "use_stable_diffusion_model": "sd-v1-4",
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "texts"), OTHERS)
def test_other_tools_pictures_are_understood(tmp_path: Path, tool: str, texts: dict[str, str]) -> None:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", pnginfo=info)
    found = describe(tmp_path / "a.png")
    assert found.tool == tool
    assert found.prompt == "a cat"
    assert found.settings["steps"] == 30
    assert found.settings["seed"] == 5
    assert found.settings["guidance"] == 7.5


def test_comfyui_webp_keeps_its_graph_in_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{json.dumps(GRAPH)}"
    Image.new("RGB", (16, 16)).save(tmp_path / "a.webp", exif=exif)
    assert describe(tmp_path / "a.webp").prompt == "a bottle"


def test_a_picture_without_metadata_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    found = describe(tmp_path / "a.png")
    assert (found.tool, found.prompt, dict(found.settings)) == ("", "", {})


@pytest.mark.parametrize(
    "texts",
    [
        {"sfumato": "{"},
        {"sfumato": "[]"},
        {"sfumato": '{"request": {"stepps": 3}, "index": 0, "seed": 1}'},
        {"invokeai_metadata": "[]"},
        {"parameters": "{"},
        {"prompt": "{"},
        {"prompt": '{"3": 4}'},
        {"Dream": '"'},
        {"sd-metadata": "{}"},
        {"invokeai_metadata": "[" * 100_000},
    ],
)
def test_damaged_metadata_is_a_picture_error(texts: dict[str, str]) -> None:
    with pytest.raises(PictureError):
        describe_texts(texts)


def test_a_file_that_is_no_picture_is_a_picture_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg/>")
    with pytest.raises(PictureError, match="not a PNG"):
        describe(tmp_path / "a.png")
    path = save(stamped(), tmp_path / "b.png")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PictureError):
        describe(path)
