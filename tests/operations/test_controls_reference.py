"""Whole pictures with ControlNets and T2I-Adapters, with the same weights and noise as diffusers'.

Twenty steps with guidance in float32; a pixel may differ by one level of 255, where both sides round differently.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from test_reference import LEVELS, NEGATIVE, PROMPT, composited, generator, half_mask, largest, scheduler
from tiny_models import SIZE, Pair, random_weights, scene

from sfumato.controls.preprocess import preprocess
from sfumato.errors import RequestError
from sfumato.generation import generate
from sfumato.model import Model
from sfumato.request import Control, Request
from sfumato.weights.controls import with_controls

COMMON = {"num_inference_steps": 20, "guidance_scale": 7.5, "negative_prompt": NEGATIVE}
ADAPTER = {"in_channels": 3, "channels": [32, 64], "num_res_blocks": 2, "downscale_factor": 8}
ADAPTERS = {
    "sd1": {**ADAPTER, "adapter_type": "full_adapter"},
    "sdxl": {**ADAPTER, "downscale_factor": 16, "adapter_type": "full_adapter_xl"},
}


def hint(turn: int = 0) -> Image.Image:
    return scene().rotate(90 * turn)


@pytest.fixture(scope="module")
def controlnet(pair: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A ControlNet for a pair's UNet with random weights: diffusers', and its folder."""
    made: dict[tuple[str, int], tuple[Any, str]] = {}

    def build(kind: str, seed: int = 0, **changes: Any) -> tuple[Any, str]:
        key = (kind, seed)
        if key not in made or changes:
            network = diffusers.ControlNetModel.from_unet(pair(kind).components["unet"])
            network.register_to_config(**changes)
            random_weights(network, 10 + seed)
            folder = tmp_path_factory.mktemp(f"{kind}-{seed}")
            network.save_pretrained(folder)
            made[key] = (network, str(folder))
        return made[key]

    return build


def request(**changes: Any) -> Request:
    fields = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 5, "steps": 20, "guidance": 7.5}
    size = {} if "strength" in changes else {"width": SIZE, "height": SIZE}
    return Request(**{**fields, "noise": "sequential", **size, **changes})


def drawn(model: Model, asked: Request, **pictures: Any) -> Image.Image:
    (found,) = generate(with_controls(model, [control.model for control in asked.controls]), asked, **pictures)
    assert np.asarray(found).std() > 10  # a flat picture would prove nothing
    return found


def shown(*controls: Control) -> dict[str, Any]:
    """The controls with pictures that are handed over, by their names in them."""
    return {"controls": controls}


PICTURES = {"first": hint(), "second": hint(1)}


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
def test_a_picture_with_a_controlnet_equals_that_of_diffusers(
    kind: str, name: str, pair: Callable[[str], Pair], controlnet: Callable[..., Any]
) -> None:
    network, folder = controlnet(kind)
    made = scheduler(name, kind)
    pipeline = diffusers.StableDiffusionXLControlNetPipeline if kind == "sdxl" else None
    theirs = Pair({**pair(kind).components, "controlnet": network}, pair(kind).ours).theirs(
        pipeline or diffusers.StableDiffusionControlNetPipeline, made
    )
    options = {
        **COMMON,
        "controlnet_conditioning_scale": 0.7,
        "control_guidance_start": 0.1,
        "control_guidance_end": 0.8,
    }
    expected = theirs(PROMPT, image=hint(), **options, height=SIZE, width=SIZE, generator=generator(5)).images[0]
    asked = request(controls=[Control(folder, "first", weight=0.7, start=0.1, end=0.8)])
    found = drawn(pair(kind).with_scheduler(made), asked, pictures=PICTURES)
    assert largest(found, expected) <= LEVELS
    plain = drawn(pair(kind).with_scheduler(made), request())
    assert largest(found, plain) > 30  # it does something


@pytest.fixture(scope="module")
def union(pair: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A ControlNet for several kinds of pictures: diffusers', and its folder."""
    unet = pair("sdxl").components["unet"].config
    names = (
        *("in_channels", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups"),
        *("cross_attention_dim", "attention_head_dim", "use_linear_projection", "transformer_layers_per_block"),
        *("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim"),
    )
    network = diffusers.ControlNetUnionModel(
        **{name: unet[name] for name in names},
        conditioning_embedding_out_channels=(16, 32, 96, 256),
        num_control_type=8,
        num_trans_channel=32,
        num_proj_channel=32,
    )
    random_weights(network, 30)
    folder = tmp_path_factory.mktemp("union")
    network.save_pretrained(folder)
    return network, str(folder)


@pytest.mark.parametrize(
    ("task", "preprocessor", "mode"), [("line", "none", 3), (None, "canny", 3), ("tile", "none", 6)]
)
def test_a_picture_with_a_controlnet_union_equals_that_of_diffusers(
    task: str | None, preprocessor: str, mode: int, pair: Callable[[str], Pair], union: tuple[Any, str]
) -> None:
    network, folder = union
    both = Pair({**pair("sdxl").components, "controlnet": network}, pair("sdxl").ours)
    theirs = both.theirs(diffusers.StableDiffusionXLControlNetUnionPipeline, scheduler("ddim", "sdxl"))
    control = Control(folder, "first", weight=0.8, end=0.7, task=task, preprocessor=preprocessor)
    seen = preprocess(hint(), preprocessor, control.options) if preprocessor != "none" else hint()
    options = {**COMMON, "controlnet_conditioning_scale": 0.8, "control_guidance_end": 0.7}
    expected = theirs(
        PROMPT, control_image=[seen], control_mode=[mode], **options, height=SIZE, width=SIZE, generator=generator(5)
    ).images[0]
    model = pair("sdxl").with_scheduler(scheduler("ddim", "sdxl"))
    found = drawn(model, request(controls=[control]), pictures=PICTURES)
    assert largest(found, expected) <= LEVELS
    other = replace(control, task="depth", preprocessor="none", options={})
    assert largest(found, drawn(model, request(controls=[other]), pictures=PICTURES)) > 5  # it is told apart


def test_a_controlnet_union_wants_to_know_what_it_sees(
    pair: Callable[[str], Pair], union: tuple[Any, str], controlnet: Callable[..., Any]
) -> None:
    for folder, kind, task, says in (
        (union[1], "sdxl", None, "has no task for .*say which of openpose, depth"),
        (controlnet("sd1")[1], "sd1", "depth", "has task 'depth' for .* which is for one kind"),
    ):
        with pytest.raises(RequestError, match=says):
            drawn(pair(kind).ours, request(controls=[Control(folder, "first", task=task)]), pictures=PICTURES)
    with pytest.raises(RequestError, match="it must be one of openpose"):
        Control("x", task="pose")
    assert Control("x", task="depth").to_dict()["task"] == "depth"
    assert "task" not in Control("x").to_dict()


@pytest.mark.parametrize("mode", ["balanced", "guess"])
def test_two_controlnets_at_once_equal_those_of_diffusers(
    mode: Any, pair: Callable[[str], Pair], controlnet: Callable[..., Any]
) -> None:
    networks, folders = zip(*(controlnet("sd1", seed) for seed in (0, 1)), strict=True)
    both = Pair({**pair("sd1").components, "controlnet": list(networks)}, pair("sd1").ours)
    theirs = both.theirs(diffusers.StableDiffusionControlNetPipeline)
    expected = theirs(
        PROMPT,
        image=[hint(), hint(1)],
        **COMMON,
        controlnet_conditioning_scale=[0.5, 1.2],
        control_guidance_end=[1.0, 0.5],
        guess_mode=mode == "guess",
        height=SIZE,
        width=SIZE,
        generator=generator(5),
    ).images[0]
    first = Control(folders[0], "first", weight=0.5, mode=mode)
    second = Control(folders[1], "second", weight=1.2, end=0.5, mode=mode)
    found = drawn(pair("sd1").ours, request(controls=[first, second]), pictures=PICTURES)
    assert largest(found, expected) <= LEVELS


def test_a_controlnet_that_averages_equals_that_of_diffusers(
    pair: Callable[[str], Pair], controlnet: Callable[..., Any]
) -> None:
    network, folder = controlnet("sd1", 2, global_pool_conditions=True)
    theirs = Pair({**pair("sd1").components, "controlnet": network}, pair("sd1").ours).theirs(
        diffusers.StableDiffusionControlNetPipeline
    )
    expected = theirs(PROMPT, image=hint(), **COMMON, height=SIZE, width=SIZE, generator=generator(5)).images[0]
    found = drawn(pair("sd1").ours, request(controls=[Control(folder, "first")]), pictures=PICTURES)
    assert largest(found, expected) <= LEVELS


def test_a_controlnet_at_guidance_1_equals_that_of_diffusers(
    pair: Callable[[str], Pair], controlnet: Callable[..., Any]
) -> None:
    network, folder = controlnet("sd1")
    theirs = Pair({**pair("sd1").components, "controlnet": network}, pair("sd1").ours).theirs(
        diffusers.StableDiffusionControlNetPipeline
    )
    options = {**COMMON, "guidance_scale": 1.0}
    expected = theirs(PROMPT, image=hint(), **options, height=SIZE, width=SIZE, generator=generator(5)).images[0]
    found = drawn(pair("sd1").ours, request(guidance=1.0, controls=[Control(folder, "first")]), pictures=PICTURES)
    assert largest(found, expected) <= LEVELS


def test_img2img_with_a_controlnet_equals_that_of_diffusers(
    pair: Callable[[str], Pair], controlnet: Callable[..., Any]
) -> None:
    network, folder = controlnet("sd1")
    made = scheduler("euler", "sd1")
    theirs = Pair({**pair("sd1").components, "controlnet": network}, pair("sd1").ours).theirs(
        diffusers.StableDiffusionControlNetImg2ImgPipeline, made
    )
    expected = theirs(
        PROMPT, image=scene(), control_image=hint(1), **COMMON, strength=0.6, control_guidance_end=0.7,
        controlnet_conditioning_scale=1.0, generator=generator(5),
    ).images[0]  # fmt: skip
    asked = request(strength=0.6, controls=[Control(folder, "second", end=0.7)])
    found = drawn(pair("sd1").with_scheduler(made), asked, image=scene(), pictures=PICTURES)
    assert largest(found, expected) <= LEVELS


def inpainting_hint(mask: Image.Image) -> torch.Tensor:
    """What lllyasviel's inpainting ControlNet sees: the picture, and -1 where it is to be repainted."""
    pixels = np.asarray(scene()).astype(np.float32) / 255
    pixels[np.asarray(mask) > 127] = -1
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("kind", "strength"), [("sd1", 0.6), ("inpaint", 1.0)])
def test_inpainting_with_a_controlnet_equals_that_of_diffusers(
    kind: str, strength: float, pair: Callable[[str], Pair], controlnet: Callable[..., Any]
) -> None:
    network, folder = controlnet("sd1")  # which sees the latent alone
    theirs = Pair({**pair(kind).components, "controlnet": network}, pair(kind).ours).theirs(
        diffusers.StableDiffusionControlNetInpaintPipeline
    )
    expected = theirs(
        PROMPT, image=scene(), mask_image=half_mask(), control_image=inpainting_hint(half_mask()), **COMMON,
        strength=strength, height=SIZE, width=SIZE, controlnet_conditioning_scale=1.0, generator=generator(5),
    ).images[0]  # fmt: skip
    asked = request(strength=strength, controls=[Control(folder, preprocessor="inpaint")])
    found = drawn(pair(kind).ours, asked, image=scene(), mask=half_mask())
    assert largest(found, composited(expected, half_mask())) <= LEVELS


@pytest.mark.filterwarnings("ignore:The decode_latents method is deprecated")  # which diffusers calls itself
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_picture_with_a_t2i_adapter_equals_that_of_diffusers(
    kind: str, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    network = random_weights(diffusers.T2IAdapter(**ADAPTERS[kind]), 3)
    network.save_pretrained(tmp_path)
    pipeline = (
        diffusers.StableDiffusionXLAdapterPipeline if kind == "sdxl" else diffusers.StableDiffusionAdapterPipeline
    )
    components = {
        name: part for name, part in pair(kind).components.items() if name != "image_encoder" or kind == "sdxl"
    }
    theirs = Pair({**components, "adapter": network}, pair(kind).ours).theirs(pipeline)
    options = {**COMMON, "adapter_conditioning_scale": 0.6} | (
        {"adapter_conditioning_factor": 0.5} if kind == "sdxl" else {}
    )
    expected = theirs(PROMPT, image=hint(), **options, height=SIZE, width=SIZE, generator=generator(5)).images[0]
    control = Control(str(tmp_path), "first", weight=0.6, end=0.5 if kind == "sdxl" else 1.0)
    found = drawn(pair(kind).ours, request(controls=[control]), pictures=PICTURES)
    assert largest(found, expected) <= LEVELS
