"""Tiny models of every family with random weights, as diffusers pipelines and as ours, loaded from one folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from sfumato.diffusion.presets import from_scheduler_config
from sfumato.diffusion.schedule import from_scheduler_config as schedule_from_config
from sfumato.model import Model
from sfumato.text.clip_vocabulary import clip_tokenizer

SIZE = 64  # pixels; 8 x 8 latent cells with a stride of 8
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}

UNET = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "sample_size": SIZE // 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}
AUTOENCODER = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": SIZE,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}


def random_weights(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights large enough that prompts, timesteps and pictures all matter to what comes out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def text_encoder(seed: int, *, projection: bool = False, act: str = "quick_gelu") -> torch.nn.Module:
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    config = transformers.CLIPTextConfig(**TEXT, hidden_act=act, projection_dim=32)
    return random_weights(kind(config), seed)


def build(kind: str, folder: Path) -> dict[str, Any]:
    """Saves a tiny pipeline of a kind: sd1, sd2 (velocity), inpaint (nine channels), sdxl, ...; its components."""
    pad = "<|endoftext|>" if kind in ("sd1", "inpaint", "instruct") else "!"
    clip_tokenizer(pad).save(folder / "tokenizer-made")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer-made")
    unet: dict[str, Any] = dict(UNET)
    xl = kind in ("sdxl", "instruct-sdxl")
    if kind in ("inpaint", "instruct", "instruct-sdxl"):
        unet["in_channels"] = 9 if kind == "inpaint" else 8
    if kind == "sd2" or xl:
        unet |= {"use_linear_projection": True, "attention_head_dim": (2, 4)}
    if xl:
        unet |= {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "cross_attention_dim": 64,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
        }
    scheduler = diffusers.DDIMScheduler(
        **SCHEDULER,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction" if kind == "sd2" else "epsilon",
    )
    parts = {
        "unet": random_weights(diffusers.UNet2DConditionModel(**unet), 1),
        "vae": random_weights(diffusers.AutoencoderKL(**AUTOENCODER), 2),
        "text_encoder": text_encoder(3, act="gelu" if kind == "sd2" else "quick_gelu"),
        "tokenizer": tokenizer,
        "scheduler": scheduler,
    }
    if xl:
        named = diffusers.StableDiffusionXLPipeline
        if kind == "instruct-sdxl":
            named = diffusers.StableDiffusionXLInstructPix2PixPipeline
        pipeline = named(**parts, text_encoder_2=text_encoder(4, projection=True, act="gelu"), tokenizer_2=tokenizer)
    else:
        named = {
            "sd1": diffusers.StableDiffusionPipeline,
            "sd2": diffusers.StableDiffusionPipeline,
            "inpaint": diffusers.StableDiffusionInpaintPipeline,
            "instruct": diffusers.StableDiffusionInstructPix2PixPipeline,
        }[kind]
        pipeline = named(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.save_pretrained(folder / kind)
    return pipeline.components


@dataclass(frozen=True)
class Pair:
    """One set of weights on both sides."""

    components: dict[str, Any]
    ours: Model

    def theirs(self, pipeline: type, scheduler: object | None = None) -> Any:
        """The weights as a diffusers pipeline, with another scheduler if one is given."""
        found = pipeline(**self.components | ({} if scheduler is None else {"scheduler": scheduler}))
        found.set_progress_bar_config(disable=True)
        return found

    def with_scheduler(self, scheduler: Any) -> Model:
        """Our model with the configuration of a diffusers scheduler in place of its own."""
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        return replace(self.ours, sampling=from_scheduler_config(config), schedule=schedule_from_config(config))


def scene(width: int = SIZE, height: int = SIZE) -> Image.Image:
    """A smooth picture without symmetry."""
    picture = Image.new("RGB", (width, height))
    picture.putdata(
        [((x * 255) // width, (y * 255) // height, (x * y) % 256) for y in range(height) for x in range(width)]
    )
    return picture


@contextmanager
def recorded(network: torch.nn.Module) -> Iterator[list[int]]:
    """The batch size of each call of a network, while the context lasts."""
    calls: list[int] = []
    hook = network.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    try:
        yield calls
    finally:
        hook.remove()
