"""What steers a picture on Create: controls, image prompts, regions, LoRAs, a second pass; and all of it as JSON."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from studio_flows import PHONE, ask, draw, pixels, result
from studio_server import Server

from sfumato.controls.preprocess import preprocess
from sfumato.fitting import crop_to_fill
from sfumato.request import LATENT_UPSCALERS, PIXEL_UPSCALERS, PREPROCESSORS, checked_options

DRAWERS = (
    "controls",
    "regions",
    "advanced",
    "more",
    "json",
    "guides",
    "noise",
    "words",
    "network",
    "start",
    "told",
    "hires",
)
OPEN = "".join(f"localStorage['sfumato.{name}'] ??= 'open';" for name in DRAWERS)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a ControlNet, an IP-Adapter and a LoRA of the embedded model, an image encoder, and a style."""
    import torch
    from safetensors.torch import save_file

    import sfumato
    from random_networks import randomize
    from sfumato.nn.clip_vision import ImageEncoder, VisionConfig
    from sfumato.nn.controlnet import ControlNet
    from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
    from sfumato.weights.ip_adapter_file import ways
    from sfumato.weights.locate import embedded

    home = tmp_path_factory.mktemp("home")
    unet = sfumato.load(embedded()).unet
    control = ControlNet.of(unet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a new one adds nothing; this one adds something
        for name, value in control.state_dict().items():
            if name.startswith("controlnet_"):
                value.normal_(0, 0.02, generator=generator)
    save_file(control.state_dict(), home / "edges.safetensors")
    seeing = VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, projection_dim=24
    )
    down, up, middle = ways(unet)
    words = unet.config.cross_attention_dim
    adapter = IPAdapter(IPAdapterConfig("plain", seen=24, context=words, widths=(*down, *up, *middle)))
    encoder = ImageEncoder(seeing)
    (home / "image_encoder").mkdir()
    for network, file in ((adapter, "like.safetensors"), (encoder, "image_encoder/model.safetensors")):
        randomize(network, 2)
        save_file(network.state_dict(), home / file)
    (home / "image_encoder" / "config.json").write_text(json.dumps(seeing.to_json()))
    named = next(name for name, value in unet.named_parameters() if name.endswith("attn1.to_q.weight"))
    width = unet.get_parameter(named).shape[0]
    layer = "lora_unet_" + named.removesuffix(".weight").replace(".", "_")
    halves = {f"{layer}.lora_down.weight": torch.ones(1, width), f"{layer}.lora_up.weight": torch.ones(width, 1)}
    save_file(halves, home / "ink.safetensors")
    kinds = {"edges": "controlnet", "like": "controlnet", "ink": "lora"}
    aliases = {name: {"place": str(home / f"{name}.safetensors"), "kind": kind} for name, kind in kinds.items()}
    (home / "models.json").write_text(json.dumps({"aliases": aliases}))
    with (home / "styles.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "prompt", "negative_prompt"], ["evening", "{prompt} at sunset", "noon"]])
    return home


@pytest.fixture(scope="module")
def steered(networks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that has them."""
    made = Server(tmp_path_factory.mktemp("steered"))
    (made.folder / "home").mkdir()
    for file in ("models.json", "styles.csv"):
        os.link(networks / file, made.folder / "home" / file)
    made.start()
    yield made
    made.stop()


def opened(tab: Any, server: Any, **options: Any) -> Any:
    """Create with all its drawers open."""
    page = tab(server, "#/models", draft={"steps": 4}, **options)
    page.evaluate(OPEN)
    page.goto(f"{server.address}/#/create")
    return page


def house() -> Image.Image:
    picture = Image.new("RGB", (160, 128), (120, 180, 230))
    ImageDraw.Draw(picture).rectangle((40, 60, 110, 110), fill=(180, 40, 40))
    return picture


def put_in(page: Any, slot: str, picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "PNG")
    page.get_by_label(f"{slot} from a file").set_input_files(
        {"name": "house.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )


def request_of(page: Any) -> dict[str, Any]:
    """The request that the form stands for, as its own view of it says."""
    return json.loads(page.locator("#json").input_value())  # type: ignore[no-any-return]


def newest(page: Any) -> dict[str, Any]:
    return ask(page, "/jobs")["jobs"][0]["request"]  # type: ignore[no-any-return]


def test_where_no_network_is_installed_the_section_says_what_to_do(own_server: Any, tab: Any) -> None:
    page = opened(tab, own_server)
    expect(page.get_by_text("No such network is installed.")).to_be_visible()
    expect(page.get_by_text("sfumato models add NAME FILE", exact=True).first).to_be_visible()
    expect(page.get_by_text("None is installed; sfumato models add")).to_be_visible()  # of LoRAs


def test_a_control_is_set_seen_drawn_with_and_read_back(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    page.get_by_label("Seed", exact=True).fill("5")
    draw(page, "a red house on green grass")
    plain = pixels(page, result(page, "a red house on green grass").get_attribute("src"))
    page.get_by_label("Add a control").select_option("edges")
    put_in(page, "Picture of control 1", house().convert("RGBA"))
    expect(page.get_by_role("img", name="What control 1 is made from")).to_be_visible()
    offered = page.get_by_label("Preprocessor").locator("option").evaluate_all("all => all.map(one => one.value)")
    assert offered == [name for name in PREPROCESSORS if name != "inpaint"]  # which needs a mask
    page.get_by_label("Preprocessor").select_option("canny")
    page.get_by_label("low", exact=True).fill("50")
    seen = page.get_by_role("img", name="What the network of control 1 sees")
    expected = preprocess(crop_to_fill(house(), 128, 128), "canny", checked_options("canny", {"low": 50}))
    levels = """image => image.decode().then(() => {
        const canvas = document.createElement('canvas')
        canvas.width = image.naturalWidth; canvas.height = image.naturalHeight
        const draw = canvas.getContext('2d'); draw.drawImage(image, 0, 0)
        return [...draw.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, at) => at % 4 === 0)
    }).catch(() => [])"""
    expect(seen).to_be_visible()
    for _ in range(100):  # until the last number has been heard
        if seen.evaluate(levels) == list(expected.convert("RGB").getchannel(0).tobytes()):
            break
        page.wait_for_timeout(100)
    else:
        raise AssertionError("what is shown is not what the network sees")
    page.get_by_label("Weight of control 1").fill("0.8")
    page.get_by_label("End of control 1").fill("0.75")
    page.get_by_label("Mode", exact=True).select_option("control")
    page.keyboard.press("Control+Enter")
    strip = page.get_by_role("toolbar", name="Drawn in this tab").get_by_role("button")
    expect(strip).to_have_count(2)
    shown = result(page, "a red house on green grass")
    assert pixels(page, shown.get_attribute("src")).tobytes() != plain.tobytes()
    (control,) = newest(page)["controls"]
    assert (control["model"], control["preprocessor"], control["mode"]) == ("edges", "canny", "control")
    assert (control["weight"], control["start"], control["end"]) == (0.8, 0, 0.75)
    assert control["options"] == {"low": 50, "high": 200}
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_role("group", name="control 1", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Reuse", exact=True).click()
    expect(page.get_by_label("End of control 1")).to_have_value("0.75")
    expect(page.get_by_label("low", exact=True)).to_have_value("50")
    expect(page.get_by_role("img", name="What control 1 is made from")).to_be_visible()
    assert request_of(page)["controls"][0]["image"] == control["image"]
    page.get_by_role("button", name="Remove control 1").click()
    assert "controls" not in request_of(page)


def test_two_controls_an_image_prompt_and_a_pasted_picture(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    for name in ("edges", "edges", "like"):
        page.get_by_label("Add a control").select_option(name)
    put_in(page, "Picture 1 of image prompt 1", house())
    put_in(page, "Picture 2 of image prompt 1", house().rotate(90))
    expect(page.get_by_role("img", name="Picture 2 of image prompt 1")).to_be_visible()
    slot = page.get_by_role("group", name="Picture of control 2")
    slot.get_by_role("button", name="choose a file").focus()
    file = io.BytesIO()
    house().save(file, "PNG")
    slot.evaluate(
        """(slot, bytes) => {
            const clipboardData = new DataTransfer()
            clipboardData.items.add(new File([new Uint8Array(bytes)], 'pasted.png', { type: 'image/png' }))
            slot.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))
        }""",
        list(file.getvalue()),
    )
    expect(page.get_by_role("img", name="What control 2 is made from")).to_be_visible()
    expect(page.get_by_role("img", name="What to start from")).to_have_count(0)  # it was for the slot
    request = request_of(page)
    assert [each["model"] for each in request["controls"]] == ["edges", "edges"]
    assert "image" not in request["controls"][0]
    assert len(set(request["image_prompts"][0]["images"])) == 2
    draw(page, "a house")  # the first control has no picture
    expect(page.get_by_role("alert").filter(has_text="edges without an image").first).to_be_visible()


def test_a_picture_in_place_of_words_is_drawn_with_within_what_is_painted(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    page.get_by_label("Seed", exact=True).fill("5")
    strip = page.get_by_role("toolbar", name="Drawn in this tab").get_by_role("button")

    def drawn(number: int) -> np.ndarray:
        page.keyboard.press("Control+Enter")
        expect(strip).to_have_count(number)
        return np.array(pixels(page, result(page, "a red house").get_attribute("src")), dtype=int)

    page.get_by_label("Prompt", exact=True).fill("a red house")
    plain = drawn(1)
    page.get_by_label("Add a control").select_option("like")
    put_in(page, "Picture 1 of image prompt 1", house())
    expect(page.get_by_role("img", name="Picture 1 of image prompt 1")).to_be_visible()
    everywhere = drawn(2)
    assert np.abs(everywhere - plain).mean() > 1
    page.get_by_label("Weight of image prompt 1").fill("0")
    assert np.abs(drawn(3) - plain).max() <= 1  # it counts for nothing
    page.get_by_label("Weight of image prompt 1").fill("1")
    unit = page.get_by_role("group", name="image prompt 1", exact=True)
    unit.get_by_label("Image encoder").fill("nobody's")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert").first).to_contain_text("nobody's")
    unit.get_by_label("Image encoder").fill("")
    assert "encoder" not in request_of(page)["image_prompts"][0]
    unit.get_by_label("Only in a part of the picture").check()
    unit.get_by_role("button", name="Mask everything").click()
    whole = drawn(4)
    assert np.abs(whole - everywhere).max() <= 1
    unit.get_by_role("button", name="Invert the mask").click()
    expect(unit.get_by_role("button", name="Clear the mask")).to_be_disabled()
    assert "mask" not in request_of(page)["image_prompts"][0]  # nothing is painted
    pad = unit.get_by_role("application")
    pad.scroll_into_view_if_needed()
    paint(page, pad, (0.5, 0.1), (0.5, 0.9))
    drawn(5)
    (asked,) = newest(page)["image_prompts"]
    assert (asked["model"], len(asked["images"])) == ("like", 1)
    mask = np.array(pixels(page, f"/sfumato/v1/uploads/{asked['mask']}/file").convert("L"))
    assert mask.shape == (128, 128) and mask[64, 64] == 255 and mask[:, [4, 123]].max() == 0
    unit.get_by_label("Only in a part of the picture").uncheck()
    assert "mask" not in request_of(page)["image_prompts"][0]


def paint(page: Any, pad: Any, *points: tuple[float, float]) -> None:
    """A stroke through points of a pad, as shares of its sides."""
    box = pad.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def test_a_region_is_painted_erased_undone_and_drawn_with(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    page.get_by_role("button", name="Paint a region").click()
    region = page.get_by_role("group", name="region 1", exact=True)
    region.get_by_label("What is there").fill("a green tree")
    draw(page, "a meadow")
    expect(page.get_by_role("alert").filter(has_text="for no one place").first).to_be_visible()
    pad = region.get_by_role("application")
    pad.scroll_into_view_if_needed()
    paint(page, pad, (0.2, 0.25), (0.8, 0.25))
    draw(page, "a meadow")  # at once: what was painted is on its way, and comes along
    result(page, "a meadow")
    (asked,) = newest(page)["regions"]
    assert asked["prompt"] == "a green tree" and "area" not in asked

    told = [asked["mask"]]

    def mask(*, changed: bool = True) -> np.ndarray:
        if changed:
            expect(page.locator("#json")).not_to_have_value(re.compile(told[-1]))
            told.append(request_of(page)["regions"][0]["mask"])
        return np.array(pixels(page, f"/sfumato/v1/uploads/{told[-1]}/file").convert("L"))

    rows = np.where(mask(changed=False)[:, 64] > 127)[0]  # the brush is a fifth of the side
    assert abs(len(rows) - 0.2 * 128) <= 4 and abs(rows.mean() - 32) < 2
    shown = page.locator(".frame .painted")
    assert asked["mask"] in shown.evaluate("each => getComputedStyle(each).maskImage")
    page.mouse.move(2, 2)
    pad.focus()
    page.keyboard.press("Enter")  # the brush is put down in the middle
    assert mask()[64, 64] == 255
    region.get_by_role("button", name="Undo").click()
    assert mask()[64, 64] == 0 and told[-1] == asked["mask"]
    region.get_by_role("button", name="Eraser").click()
    paint(page, pad, (0.2, 0.25), (0.8, 0.25))
    expect(region.get_by_role("button", name="Clear the mask")).to_be_enabled()  # its rim is soft
    page.keyboard.press("Control+z")
    region.get_by_role("button", name="Brush").click()
    page.get_by_role("button", name="Add a rectangle").click()
    page.get_by_role("group", name="region 2", exact=True).get_by_label("What is there").fill("a red ball")
    page.get_by_role("button", name="Remove region 1").click()
    assert [each["prompt"] for each in request_of(page)["regions"]] == ["a red ball"]
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_role("button", name="Reuse", exact=True).click()
    expect(region.get_by_role("button", name="Clear the mask")).to_be_enabled()  # it is on the pad again
    assert request_of(page)["regions"][0]["mask"] == asked["mask"]


def test_regions_are_drawn_moved_by_keys_and_told_by_numbers(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    frame = page.get_by_role("group", name="Regions of the picture")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.9 * box["height"], steps=5)
    page.mouse.up()
    region = page.get_by_role("group", name="region 1", exact=True)
    region.get_by_label("What is there").fill("a green tree")
    assert request_of(page)["regions"][0]["area"] == pytest.approx([0.1, 0.2, 0.3, 0.7], abs=0.02)
    region.get_by_label("Left %").fill("10")
    region.get_by_label("Top %").fill("20")
    region.get_by_label("Width %").fill("30")
    region.get_by_label("Height %").fill("70")
    assert request_of(page)["regions"][0]["area"] == [0.1, 0.2, 0.3, 0.7]
    frame.get_by_role("button", name="Region 1: a green tree").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert request_of(page)["regions"][0]["area"] == [0.15, 0.2, 0.3, 0.65]
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert request_of(page)["regions"][0]["area"] == [0.7, 0.2, 0.3, 0.65]  # no further than the edge
    page.get_by_role("button", name="Add a rectangle").click()
    page.get_by_role("group", name="region 2", exact=True).get_by_label("What is there").fill("a red ball")
    page.get_by_label("Weight of region 2").fill("0.5")
    draw(page, "a meadow")
    result(page, "a meadow")
    assert newest(page)["regions"] == [
        {"prompt": "a green tree", "area": [0.7, 0.2, 0.3, 0.65], "weight": 1.0},
        {"prompt": "a red ball", "area": [0.25, 0.25, 0.5, 0.5], "weight": 0.5},
    ]
    page.get_by_role("button", name="Remove region 1").click()
    assert [each["prompt"] for each in request_of(page)["regions"]] == ["a red ball"]


SETTINGS = [
    ("Guidance rescale", "0.3", "guidance_rescale", 0.3),
    ("Start of guidance", "0.2", "guidance_interval", [0.2, 1]),
    ("Self-attention guidance", True, "self_attention_guidance", {"scale": 0.75, "blur": 1}),
    ("Perturbed attention", True, "perturbed_attention", {"scale": 3, "adaptive": 0}),
    ("In the layers", "mid, up", "perturbed_attention", {"layers": ["mid", "up"]}),
    ("Adaptive projected guidance", True, "apg", {"eta": 0, "threshold": 0, "momentum": 0}),
    ("Variation", "0.25", "variation", {"strength": 0.25}),
    ("The other seed", "18446744073709551615", "variation", {"strength": 0.25, "seed": 2**64 - 1}),
    ("Noise width", "64", "seed_size", [64, 128]),
    ("Noise height", "96", "seed_size", [64, 96]),
    ("Fresh noise (eta)", "0.5", "eta", 0.5),
    ("Added to the step seed", "31337", "step_seed_delta", 31337),
    ("Random numbers", ["philox"], "noise", "philox"),
    ("One by one", True, "strict", True),
    ("Prompts are read as", ["comfy"], "dialect", "comfy"),
    ("Text layers left out", "1", "clip_skip", 1),
    ("Repeats without a seam", ["both"], "tiling", "both"),
    ("The model predicts", ["epsilon"], "prediction", "epsilon"),
    ("Leave out what LoRAs have", True, "allow_unmatched", True),
    ("Second pass", ["1.5"], "hires", {"scale": 1.5, "upscaler": "latent", "strength": 0.7}),
    ("Its sampler", ["euler"], "hires", {"sampler": "euler"}),
    ("Its guidance", "3", "hires", {"guidance": 3}),
    ("Its own prompt", "a red house at night", "hires", {"prompt": "a red house at night"}),
]


def test_each_setting_reaches_the_request_and_is_taken_over_again(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    page.get_by_label("Prompt", exact=True).fill("a red house")
    expected: dict[str, Any] = {}
    for label, given, field, value in SETTINGS:
        control = page.get_by_label(label, exact=label in ("Variation", "Guidance rescale"))
        if given is True:
            control.check()
        elif isinstance(given, list):
            control.select_option(given[0])
        else:
            control.fill(given)
        expected[field] = {**expected.get(field, {}), **value} if isinstance(value, dict) else value
        assert request_of(page)[field] == expected[field], label
    expect(page.locator("summary").filter(has_text="Noise and seeds")).to_contain_text("6 set")
    page.keyboard.press("Control+Enter")
    result(page, "a red house")
    asked = newest(page)
    told = {name: value for name, value in asked.items() if name in expected}
    assert told == expected
    page.get_by_role("button", name="Clear", exact=True).click()
    assert set(request_of(page)) == {"prompt", "count", "width", "height"}
    page.get_by_role("button", name="Reuse", exact=True).click()
    expect(page.locator("summary").filter(has_text="Noise and seeds")).to_contain_text("6 set")
    again = request_of(page)
    assert {name: again.get(name) for name in expected} == expected
    assert page.get_by_text("Taken over, too").count() == 0


def test_the_settings_of_start_pictures_of_parts_and_of_sdxl(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    put_in(page, "Start picture", house())
    page.get_by_label("It is fitted by").select_option("fill")
    page.get_by_label("“Change” is a share").select_option("whole")
    page.get_by_label("Draw a large picture in overlapping parts").check()
    page.get_by_label("Size of a part").fill("64")
    page.get_by_label("Overlap", exact=True).fill("16")
    page.get_by_label("Dynamic thresholding").check()
    page.get_by_label("mimic scale").fill("2")
    for label, word in (("Channels", "false"), ("Scaled from", "zero"), ("Spread is", "std")):
        page.get_by_label(label, exact=True).select_option(word)
    draw(page, "a red house")
    result(page, "a red house")
    asked = newest(page)
    assert (asked["resize_mode"], asked["strength_rule"]) == ("fill", "whole")
    assert asked["windows"] == {"size": 64, "overlap": 16}
    told = {"mimic_scale": 2, "percentile": 1, "phi": 1, "separate_channels": False, "start": "zero", "measure": "std"}
    assert asked["dynamic_thresholding"] == told
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_text("Sizes that SDXL is told")).to_have_count(0)  # which this model is not
    page.locator("#json").fill('{"prompt": "a cat", "crop": [8, 0], "image_guidance": 1.5}')
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_label("Crop left", exact=True)).to_have_value("8")
    expect(page.get_by_label("Image guidance")).to_have_value("1.5")
    page.get_by_label("Crop top", exact=True).fill("4")
    page.get_by_label("Original width", exact=True).fill("900")
    request = request_of(page)
    assert (request["crop"], request["original_size"]) == ([8, 4], [900, 128])
    for label in ("Crop left", "Crop top"):
        page.get_by_label(label, exact=True).fill("")
    assert "crop" not in request_of(page)


def test_loras_styles_a_second_pass_and_more_reach_the_picture(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    page.get_by_label("Add a LoRA").select_option("ink")
    page.get_by_label("Weight of ink", exact=True).fill("0.3")
    assert request_of(page)["loras"] == [{"name": "ink", "weight": 0.3}]
    page.get_by_label("Other weights for the text encoders").check()
    page.get_by_label("Text weight of ink", exact=True).fill("0.1")
    page.get_by_label("Weight of ink", exact=True).fill("0.4")
    page.keyboard.press("Tab")
    page.get_by_label("Add a style").select_option("evening")
    page.get_by_label("Second pass").select_option("2")
    upscalers = page.get_by_label("Enlarged by").locator("option").evaluate_all("all => all.map(one => one.value)")
    assert upscalers == [*LATENT_UPSCALERS, *PIXEL_UPSCALERS]
    page.get_by_label("Enlarged by").select_option("lanczos")
    page.get_by_label("Its steps").fill("5")
    page.get_by_label("Strength of the second pass").fill("0.4")
    page.get_by_label("Variation", exact=True).fill("0.2")
    page.get_by_label("Repeats without a seam").select_option("x")
    page.get_by_label("Text layers left out").fill("1")
    page.get_by_label("FreeU").check()
    page.get_by_label("s2", exact=True).fill("0.5")
    draw(page, "a red house")
    shown = result(page, "a red house")
    assert pixels(page, shown.get_attribute("src")).size == (256, 256)
    asked = newest(page)
    assert asked["loras"] == [{"name": "ink", "weight": 0.4, "text_weight": 0.1}]
    assert asked["styles"] == ["evening"]
    assert asked["hires"] == {"scale": 2.0, "upscaler": "lanczos", "strength": 0.4, "steps": 5}
    assert asked["variation"]["strength"] == 0.2
    assert (asked["tiling"], asked["clip_skip"]) == ("x", 1)
    assert asked["freeu"] == {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.5}
    page.get_by_role("button", name="Clear", exact=True).click()
    assert set(request_of(page)) == {"prompt", "count", "width", "height"}
    page.get_by_role("button", name="Reuse", exact=True).click()
    expect(page.get_by_label("Its steps")).to_have_value("5")
    expect(page.get_by_label("Text weight of ink", exact=True)).to_have_value("0.1")
    page.get_by_label("Other weights for the text encoders").uncheck()
    assert request_of(page)["loras"] == [{"name": "ink", "weight": 0.4}]
    again = request_of(page)
    assert {name: again[name] for name in ("styles", "hires", "tiling", "clip_skip", "freeu")} == {
        name: asked[name] for name in ("styles", "hires", "tiling", "clip_skip", "freeu")
    }


def test_the_request_is_written_as_json_and_what_is_wrong_is_said(steered: Any, tab: Any) -> None:
    page = opened(tab, steered)
    box = page.locator("#json")
    use = page.get_by_role("button", name="Use it")
    seed = 2**64 - 1
    box.fill(json.dumps({"prompt": "a blue ball", "seed": seed, "steps": 3, "eta": 0.5, "mask_blur": 4}))
    use.click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a blue ball")
    expect(page.get_by_label("Seed", exact=True)).to_have_value(str(seed))
    expect(page.get_by_label("Fresh noise (eta)")).to_have_value("0.5")
    expect(page.get_by_text("mask blur 4", exact=True)).to_be_visible()  # which has no place on this screen
    assert request_of(page)["seed"] == seed and request_of(page)["mask_blur"] == 4
    page.get_by_role("button", name="Leave out mask_blur").click()
    page.keyboard.press("Control+Enter")
    result(page, "a blue ball")
    assert {name: newest(page)[name] for name in ("seed", "eta")} == {"seed": seed, "eta": 0.5}
    assert "mask_blur" not in newest(page)
    for wrong, told in (("{", "JSON"), ("[1]", "an object"), ('{"model": "none such"}', "no model none such")):
        box.fill(wrong)
        use.click()
        expect(page.locator("#json-error")).to_contain_text(told)
    page.get_by_role("button", name="As the form is").click()
    assert request_of(page)["prompt"] == "a blue ball"
    for odd in ({"controls": [1, "x"], "regions": "left", "loras": [], "hires": 7}, {"freeu": [1]}, {"stepz": 5}):
        box.fill(json.dumps({"prompt": "a blue ball", **odd}))
        use.click()
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("alert").first).to_be_visible()  # the server's words, and the page lives on
        expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
        box.fill('{"prompt": "a blue ball"}')
        use.click()
        page.reload()


@pytest.mark.parametrize(("scheme", "viewport"), [("light", {"width": 1440, "height": 900}), ("dark", PHONE)])
def test_axe_finds_nothing_with_all_of_it_open_and_nothing_runs_over(
    steered: Any, tab: Any, scheme: str, viewport: dict[str, int]
) -> None:
    page = opened(tab, steered, color_scheme=scheme, viewport=viewport)
    for name in ("edges", "like"):
        page.get_by_label("Add a control").select_option(name)
    put_in(page, "Picture of control 1", house())
    page.get_by_label("Preprocessor").select_option("canny")
    expect(page.get_by_role("img", name="What the network of control 1 sees")).to_be_visible()
    page.get_by_role("button", name="Add a rectangle").click()
    page.get_by_label("Add a LoRA").select_option("ink")
    page.get_by_label("Add a style").select_option("evening")
    page.get_by_label("Second pass").select_option("2")
    page.get_by_label("FreeU").check()
    found = Axe().run(page).response["violations"]
    assert [f"{each['id']}: {each['nodes'][0]['html']}" for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
