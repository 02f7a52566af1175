"""Image prompts: whole pictures with diffusers' weights, noise and image encoder, and what a request with them says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image
from safetensors.torch import save_file
from test_reference import LEVELS, NEGATIVE, PROMPT, generator, largest
from tiny_models import SIZE, Pair, random_weights, scene
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, PictureError, RequestError, WeightsError
from sfumato.events import Finished
from sfumato.images import clip_pixels
from sfumato.metadata import CHUNK, PARAMETERS, parse_infotext, save
from sfumato.model import Model
from sfumato.nn.clip_vision import VisionConfig
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
from sfumato.replay import replay
from sfumato.request import ImagePrompt, Request
from sfumato.weights.ip_adapter_file import ways

ENCODER = VisionConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, projection_dim=24, image_size=224
)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"seen": 24},
    "plus": {"seen": 32, "tokens": 5, "inner": 64, "layers": 4, "heads": 2},
    "full": {"seen": 32},
}


@pytest.fixture(scope="module")
def tower() -> Any:
    """transformers' image encoder."""
    config = transformers.CLIPVisionConfig(**ENCODER.to_json())
    return random_weights(transformers.CLIPVisionModelWithProjection(config), 21)


@pytest.fixture(scope="module")
def adapter(pair: Callable[[str], Pair], tower: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The file of an IP-Adapter for a pair, with its image encoder beside it."""
    made: dict[tuple[str, str], Path] = {}

    def build(kind: str, form: Any) -> Path:
        if (kind, form) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{form}")
            unet = pair(kind).ours.unet
            down, up, middle = ways(unet)
            config = IPAdapterConfig(
                form, context=unet.config.cross_attention_dim, widths=(*down, *up, *middle), **FORMS[form]
            )
            network = random_weights(IPAdapter(config), 22)
            save_file(network.state_dict(), folder / "ip-adapter.safetensors")
            tower.save_pretrained(folder / "image_encoder")
            made[kind, form] = folder / "ip-adapter.safetensors"
        return made[kind, form]

    return build


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine("cpu", keep=2)


def drawn(engine: Engine, model: Model, *prompts: ImagePrompt, **changes: Any) -> list[Image.Image]:
    given = {name: changes.pop(name) for name in ("image", "mask", "pictures") if name in changes}
    fields: dict[str, Any] = {"prompt": "a cat", "seed": 3, "steps": 3, "width": SIZE, "height": SIZE}
    request = Request(**{**fields, "model": str(model.source), "image_prompts": prompts, **changes})
    return [event.picture for event in engine.run(request, **given) if isinstance(event, Finished)]


PICTURES = {"first": scene(90, 60), "second": scene(50, 80).rotate(90)}


@pytest.mark.parametrize(
    ("kind", "form", "images"),
    [("sd1", "plain", ("first",)), ("sd1", "plus", ("first", "second")), ("sd1", "full", ("second",)),
     ("sd2", "plain", ("first",)), ("sdxl", "plain", ("first", "second")), ("sdxl", "plus", ("second",))],
)  # fmt: skip
def test_a_picture_with_an_image_prompt_equals_that_of_diffusers(
    kind: str, form: str, images: tuple[str, ...], engine: Engine, pair: Callable[[str], Pair], adapter: Any, tower: Any
) -> None:
    path = adapter(kind, form)
    extractor = transformers.CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224)
    parts = {**pair(kind).components, "image_encoder": tower, "feature_extractor": extractor}
    named = diffusers.StableDiffusionXLPipeline if kind == "sdxl" else diffusers.StableDiffusionPipeline
    theirs = Pair(parts, pair(kind).ours).theirs(named)
    theirs.load_ip_adapter(str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None)
    theirs.set_ip_adapter_scale(0.6)
    try:
        expected = theirs(
            PROMPT,
            ip_adapter_image=[[PICTURES[each] for each in images]],
            negative_prompt=NEGATIVE,
            num_inference_steps=20,
            guidance_scale=7.5,
            height=SIZE,
            width=SIZE,
            generator=generator(5),
        ).images[0]
    finally:
        theirs.unload_ip_adapter()
    asked = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 5, "steps": 20, "guidance": 7.5}
    prompt = ImagePrompt(str(path), images, 0.6)
    (found,) = drawn(engine, pair(kind).ours, prompt, **asked, pictures=PICTURES)
    assert largest(found, expected) <= LEVELS
    assert np.asarray(found).std() > 10
    assert largest(found, drawn(engine, pair(kind).ours, **asked)[0]) > 10  # it does something


@pytest.mark.parametrize("form", ["plain", "plus"])
def test_an_image_prompt_with_a_mask_equals_that_of_diffusers(
    form: str, engine: Engine, pair: Callable[[str], Pair], adapter: Any, tower: Any
) -> None:
    path = adapter("sd1", form)
    extractor = transformers.CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224)
    parts = {**pair("sd1").components, "image_encoder": tower, "feature_extractor": extractor}
    theirs = Pair(parts, pair("sd1").ours).theirs(diffusers.StableDiffusionPipeline)
    theirs.load_ip_adapter(str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None)
    theirs.set_ip_adapter_scale(0.8)
    mask = Image.new("L", (80, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    try:
        expected = theirs(
            PROMPT,
            ip_adapter_image=PICTURES["first"],
            cross_attention_kwargs={"ip_adapter_masks": IPAdapterMaskProcessor().preprocess(mask, height=64, width=80)},
            num_inference_steps=10,
            guidance_scale=5.0,
            height=64,
            width=80,
            generator=generator(5),
        ).images[0]
    finally:
        theirs.unload_ip_adapter()
    asked = {"prompt": PROMPT, "seed": 5, "steps": 10, "guidance": 5.0, "width": 80, "height": 64}
    prompt = ImagePrompt(str(path), "first", 0.8, mask="where")
    (found,) = drawn(engine, pair("sd1").ours, prompt, **asked, pictures={**PICTURES, "where": mask})
    assert largest(found, expected) <= LEVELS
    everywhere = ImagePrompt(str(path), "first", 0.8)
    assert largest(found, drawn(engine, pair("sd1").ours, everywhere, **asked, pictures=PICTURES)[0]) > 10


def test_a_mask_of_all_white_is_everywhere_and_one_of_all_black_nowhere(
    engine: Engine, tiny: Model, adapter: Callable[..., Path]
) -> None:
    path = str(adapter("sd1", "plain"))
    given = {**PICTURES, "white": Image.new("L", (9, 9), 255), "black": Image.new("L", (9, 9), 0)}
    white, black = (
        drawn(engine, tiny, ImagePrompt(path, "first", mask=each), pictures=given)[0] for each in ("white", "black")
    )
    (everywhere,) = drawn(engine, tiny, ImagePrompt(path, "first"), pictures=given)
    (plain,) = drawn(engine, tiny)
    assert largest(white, everywhere) <= 1
    assert largest(black, plain) <= 1


def test_a_picture_is_seen_as_transformers_shows_it() -> None:
    for picture in (scene(90, 60), scene(61, 333), scene(224, 224), scene(1000, 300)):
        theirs = CLIPImageProcessorPil()(picture, return_tensors="pt").pixel_values
        assert (clip_pixels(picture, 224) - theirs).abs().max() < 1e-5


def test_weight_0_and_no_step_change_no_byte_and_start_and_end_count(
    engine: Engine, tiny: Model, adapter: Callable[..., Path]
) -> None:
    path = str(adapter("sd1", "plain"))
    (plain,) = drawn(engine, tiny)
    for changes in ({"weight": 0}, {"start": 0.5, "end": 0.5}):
        (found,) = drawn(engine, tiny, ImagePrompt(path, "first", **changes), pictures=PICTURES)
        assert found.tobytes() == plain.tobytes()
    whole, half = (
        drawn(engine, tiny, ImagePrompt(path, "first", end=end), pictures=PICTURES)[0].tobytes() for end in (1, 0.4)
    )
    assert len({whole, half, plain.tobytes()}) == 3


def test_image_prompts_act_in_batches_at_guidance_1_and_beside_each_other(
    engine: Engine, tiny: Model, adapter: Callable[..., Path]
) -> None:
    first = ImagePrompt(str(adapter("sd1", "plain")), "first", 0.5)
    second = ImagePrompt(str(adapter("sd1", "plus")), ["second", "first"], 0.5)
    together = drawn(engine, tiny, first, second, count=2, batch=2, pictures=PICTURES)
    (alone,) = drawn(engine, tiny, first, second, seed=4, pictures=PICTURES)
    assert largest(together[1], alone) <= 2
    for guidance in (1.0, 5.0):
        pictures = [
            drawn(engine, tiny, *prompts, guidance=guidance, pictures=PICTURES)[0].tobytes()
            for prompts in ((), (first,), (second,), (first, second))
        ]
        assert len(set(pictures)) == 4
    (start,) = drawn(engine, tiny, first, image=scene(), strength=0.5, pictures=PICTURES)
    assert largest(start, drawn(engine, tiny, image=scene(), strength=0.5)[0]) > 5


def test_a_picture_with_image_prompts_tells_them_and_replays(
    engine: Engine, tiny: Model, adapter: Callable[..., Path], tmp_path: Path
) -> None:
    for name, picture in PICTURES.items():
        picture.save(tmp_path / f"{name}.png")
    path = adapter("sd1", "plus")
    Image.linear_gradient("L").save(tmp_path / "where.png")
    images, where = [str(tmp_path / f"{name}.png") for name in PICTURES], str(tmp_path / "where.png")
    prompt = ImagePrompt(str(path), images, 0.7, 0.0, 0.9, mask=where)
    (found,) = drawn(engine, tiny, prompt)
    record = json.loads(found.info[CHUNK])
    assert list(record["inputs"]) == ["image prompt 0 mask", "image prompt 0.0", "image prompt 0.1"]
    said = record["request"]["image_prompts"][0]
    assert [said["mask"], *said["images"]] == list(record["inputs"].values())
    digest = record["model"]["hashes"][f"control {path}"]
    assert parse_infotext(found.info[PARAMETERS]).parameters["ControlNet 0"] == (
        f"Module: ip-adapter-auto, Model: ip-adapter [{digest[:8]}], Weight: 0.7, Guidance Start: 0, Guidance End: 0.9"
    )
    made = save(found, tmp_path / "made.png")
    assert replay(made, engine=engine).outcome == "identical"
    (tmp_path / "second.png").unlink()
    assert replay(made, engine=engine).outcome == "missing picture"


def test_what_does_not_go_together_is_told(
    engine: Engine, pair: Callable[[str], Pair], tiny: Model, adapter: Callable[..., Path], tmp_path: Path
) -> None:
    path = adapter("sd1", "plain")
    with pytest.raises(WeightsError, match="words have 64 features"):
        drawn(engine, pair("sdxl").ours, ImagePrompt(str(path), "first"), pictures=PICTURES)
    alone = tmp_path / "ip-adapter.safetensors"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(ModelNotFoundError, match="needs an image encoder of 24 features"):
        drawn(engine, tiny, ImagePrompt(str(alone), "first"), pictures=PICTURES)
    named = ImagePrompt(str(alone), "first", encoder=str(path.parent / "image_encoder"))
    (beside,) = drawn(engine, tiny, ImagePrompt(str(path), "first"), pictures=PICTURES)
    assert drawn(engine, tiny, named, pictures=PICTURES)[0].tobytes() == beside.tobytes()
    with pytest.raises(WeightsError, match="no image encoder: it looks like an IP-Adapter"):
        drawn(engine, tiny, ImagePrompt(str(alone), "first", encoder=str(alone)), pictures=PICTURES)
    with pytest.raises(WeightsError, match="not a control; give it as an image prompt"):
        drawn(engine, tiny, controls=[{"model": str(path), "image": "first"}], pictures=PICTURES)
    with pytest.raises(PictureError, match="no such file"):
        drawn(engine, tiny, ImagePrompt(str(path), "gone.png"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"weight": 11}, "image_prompts: weight is 11"),
        ({"images": []}, "must be one picture or a list"),
        ({"images": [""]}, "image_prompts is ''"),
        ({"start": 1, "end": 0}, "start 1 after end 0"),
        ({"maks": "x"}, "each is an object of model, images"),
    ],
)
def test_a_wrong_image_prompt_is_told(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told) as error:
        Request(image_prompts=[{"model": "m", "images": "a.png", **fields}])  # type: ignore[list-item]
    assert error.value.field == "image_prompts"
    with pytest.raises(RequestError, match="without images"):
        Request(image_prompts=[{"model": "m"}])  # type: ignore[list-item]


def test_a_request_with_image_prompts_is_the_same_through_json() -> None:
    request = Request(image_prompts=[ImagePrompt("a", ["b.png", "c.png"], 0.5, 0.1, 0.7, "d"), ImagePrompt("e", "f")])
    assert Request.from_json(request.to_json()) == request
    assert "image_prompts" not in Request().to_dict()


def test_the_adapters_arithmetic_is_left_out_where_it_is_not_asked(tiny: Model) -> None:
    """The order of a UNet's cross-attentions, by which the layers of a file find theirs."""
    from sfumato.nn.attention import CrossAttention

    found = [each for each in tiny.unet.modules() if isinstance(each, CrossAttention)]
    assert [each.place for each in found] == list(range(len(found)))
    assert isinstance(found[0].to_q, torch.nn.Linear)
