"""Tiny random models of every kind, made by diffusers itself."""

import warnings
from pathlib import Path
from typing import Any

import torch

from sfumato.text.vocabulary import train_vocabulary, write_vocabulary

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    import diffusers
    import transformers

KINDS = ("sd1", "sd1-inpaint", "sd2", "sdxl", "refiner")
LETTERS = ["abcdefghijklmnopqrstuvwxyz a photograph of an astronaut riding a horse on the green grass"]
CONV = {"down": ("DownBlock2D", "CrossAttnDownBlock2D"), "up": ("CrossAttnUpBlock2D", "UpBlock2D")}


def tokenizer(folder: Path, pad: str) -> Any:
    """A small CLIP tokenizer as transformers has it."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = train_vocabulary(LETTERS, 560)
    write_vocabulary(folder, vocab, merges)
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad, model_max_length=77
    )


def text_encoder(size: int, *, layers: int, width: int, act: str, projection: bool = False) -> Any:
    """A random text encoder of transformers."""
    config = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act=act,
        projection_dim=width,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=1,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def unet(width: int, **options: Any) -> Any:
    """A random UNet of diffusers with two levels."""
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": CONV["down"][::-1],
            "up_block_types": CONV["up"][::-1],
            "cross_attention_dim": width,
            "attention_head_dim": 2,
            **options,
        }
    )


def autoencoder(**options: Any) -> Any:
    """A random autoencoder of diffusers with two levels."""
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        sample_size=16,
        **options,
    )


def pipeline(kind: str, folder: Path) -> Any:
    """A random pipeline of one kind, with the options that set its family apart."""
    torch.manual_seed(KINDS.index(kind))
    first, second = tokenizer(folder / "one", "<|endoftext|>"), tokenizer(folder / "two", "!")
    size = len(first)
    pndm = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if kind.startswith("sd1"):
        parts = {
            "text_encoder": text_encoder(size, layers=2, width=32, act="quick_gelu"),
            "unet": unet(32, in_channels=9 if kind == "sd1-inpaint" else 4),
        }
        made = diffusers.StableDiffusionInpaintPipeline if "inpaint" in kind else diffusers.StableDiffusionPipeline
        return made(vae=autoencoder(), tokenizer=first, scheduler=pndm, **parts, **rest)
    if kind == "sd2":
        ddim = diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        )
        return diffusers.StableDiffusionPipeline(
            vae=autoencoder(),
            tokenizer=second,
            text_encoder=text_encoder(size, layers=3, width=32, act="gelu"),
            unet=unet(32, use_linear_projection=True, attention_head_dim=(2, 4), upcast_attention=True),
            scheduler=ddim,
            **rest,
        )
    return pipeline_xl(kind, first, second, size)


def pipeline_xl(kind: str, first: Any, second: Any, size: int) -> Any:
    """A random SDXL pipeline, base or refiner."""
    euler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    xl = {
        "down_block_types": CONV["down"],
        "up_block_types": CONV["up"],
        "use_linear_projection": True,
        "attention_head_dim": (2, 4),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": (1, 2),
    }
    vae = autoencoder(scaling_factor=0.13025)
    tower = text_encoder(size, layers=3, width=48, act="gelu", projection=True)
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=text_encoder(size, layers=2, width=32, act="quick_gelu"),
            text_encoder_2=tower,
            tokenizer=first,
            tokenizer_2=second,
            unet=unet(80, projection_class_embeddings_input_dim=48 + 6 * 8, **xl),
            scheduler=euler,
            add_watermarker=False,
        )
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=vae,
        text_encoder=None,
        text_encoder_2=tower,
        tokenizer=None,
        tokenizer_2=second,
        unet=unet(48, projection_class_embeddings_input_dim=48 + 5 * 8, **xl),
        scheduler=euler,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
