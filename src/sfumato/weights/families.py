"""The families of Stable Diffusion: what a checkpoint does not say about itself, and what tells one from another.

A diffusers folder brings its configurations; a single file brings only tensors, so the published configurations of
each family stand here. Two families never differ in less than a shape, but SD 2.x predicts noise or velocity without
any shape that shows it: its `prediction` is None, and has to be told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sfumato.errors import ConfigError
from sfumato.model import Family, TextKind
from sfumato.nn.autoencoder import AutoencoderConfig
from sfumato.nn.clip import TextEncoderConfig
from sfumato.nn.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """The configurations of a model's networks, its scheduler_config.json and its family."""

    family: Family
    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text: tuple[TextEncoderConfig, ...]
    scheduler: Mapping[str, object]


INPAINTING_CHANNELS = 9  # latent 4, mask 1, masked picture's latent 4; Rombach et al. 2022
INSTRUCTED_CHANNELS = 8  # latent 4, latent of the picture to edit 4; Brooks et al. 2022
STYLES: dict[TextKind, str] = {
    "clip": "SD 1.x",
    "openclip": "SD 2.x",
    "sdxl": "SDXL",
    "sdxl-refiner": "the SDXL refiner",
}
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"

# huggingface.co: stable-diffusion-v1-5/stable-diffusion-v1-5, unet/config.json and scheduler/scheduler_config.json
SD1_UNET = UNetConfig(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
SD1_AUTOENCODER = AutoencoderConfig(sample_size=512, force_upcast=False)
SD1_TEXT = TextEncoderConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
)
BETAS = {
    "beta_start": 0.00085,  # Rombach et al. 2022, as released: v1-inference.yaml
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SD1_SCHEDULER = MappingProxyType(
    {
        "_class_name": "PNDMScheduler",
        **BETAS,
        "prediction_type": "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "trained_betas": None,
        "clip_sample": False,
    }
)

# stabilityai/stable-diffusion-2-1. The last of OpenCLIP's 24 layers is never used and therefore left out.
SD2_UNET = UNetConfig(
    cross_attention_dim=1024,
    attention_head_dim=(5, 10, 20, 20),
    use_linear_projection=True,
    upcast_attention=True,
    sample_size=96,
)
SD2_AUTOENCODER = AutoencoderConfig(sample_size=768, force_upcast=False)
SD2_TEXT = TextEncoderConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=23,
    num_attention_heads=16,
    hidden_act="gelu",
    projection_dim=512,
)
SD2_SCHEDULER = MappingProxyType(
    {
        "_class_name": "DDIMScheduler",
        **BETAS,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "trained_betas": None,
        "clip_sample": False,
    }
)

# stabilityai/stable-diffusion-xl-base-1.0 and stable-diffusion-xl-refiner-1.0
SDXL_UNET = UNetConfig(
    block_out_channels=(320, 640, 1280),
    down_block_types=(PLAIN, CROSS, CROSS),
    up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP),
    cross_attention_dim=2048,
    attention_head_dim=(5, 10, 20),
    transformer_layers_per_block=(1, 2, 10),
    use_linear_projection=True,
    sample_size=128,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
REFINER_UNET = UNetConfig(
    block_out_channels=(384, 768, 1536, 1536),
    down_block_types=(PLAIN, CROSS, CROSS, PLAIN),
    up_block_types=(PLAIN_UP, CROSS_UP, CROSS_UP, PLAIN_UP),
    cross_attention_dim=1280,
    attention_head_dim=(6, 12, 24, 24),
    transformer_layers_per_block=4,
    use_linear_projection=True,
    sample_size=128,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2560,
)
SDXL_AUTOENCODER = AutoencoderConfig(
    sample_size=1024,
    scaling_factor=0.13025,  # 1 / std of SDXL latents, Podell et al. 2023, as released
    force_upcast=True,
)
SDXL_TEXT_2 = TextEncoderConfig(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    projection_dim=1280,
    with_projection=True,
)
SDXL_SCHEDULER = MappingProxyType(
    {
        "_class_name": "EulerDiscreteScheduler",
        **BETAS,
        "prediction_type": "epsilon",
        "interpolation_type": "linear",
        "use_karras_sigmas": False,
        "trained_betas": None,
    }
)

SD15 = Family(name="sd15", title="Stable Diffusion 1.x", text="clip", size=512)
SD15_INPAINT = Family(
    name="sd15-inpaint", title="Stable Diffusion 1.x inpainting", text="clip", size=512, inpainting=True
)
SD2 = Family(name="sd2", title="Stable Diffusion 2.x", text="openclip", size=768, prediction=None)
SD2_INPAINT = Family(
    name="sd2-inpaint",
    title="Stable Diffusion 2.x inpainting",
    text="openclip",
    size=512,
    inpainting=True,
    prediction=None,
)
SDXL = Family(name="sdxl", title="Stable Diffusion XL", text="sdxl", size=1024, guidance=5.0)
SDXL_INPAINT = Family(
    name="sdxl-inpaint", title="Stable Diffusion XL inpainting", text="sdxl", size=1024, guidance=5.0, inpainting=True
)
SD15_INSTRUCT = Family(
    name="sd15-instruct", title="Stable Diffusion 1.x InstructPix2Pix", text="clip", size=512, instructed=True
)
SDXL_INSTRUCT = Family(
    name="sdxl-instruct",
    title="Stable Diffusion XL InstructPix2Pix",
    text="sdxl",
    size=1024,
    guidance=5.0,
    instructed=True,
)
SDXL_REFINER = Family(
    name="sdxl-refiner", title="Stable Diffusion XL refiner", text="sdxl-refiner", size=1024, guidance=5.0
)
# (width of the first layer, width of the text it attends to) -> the family without inpainting
BASES = {(320, 768): "sd15", (320, 1024): "sd2", (320, 2048): "sdxl", (384, 1280): "sdxl-refiner"}
# Input channels of models that share the rest with a family.
OTHER_INPUTS = {
    5: "a depth-conditioned model (5 input channels)",
    7: "an upscaling model (7 input channels)",
}
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        SD15,
        SD15_INPAINT,
        SD15_INSTRUCT,
        SD2,
        SD2_INPAINT,
        SDXL,
        SDXL_INPAINT,
        SDXL_INSTRUCT,
        SDXL_REFINER,
    )
}


def blueprint(family: Family) -> Blueprint:
    """Return the published configurations of a family's networks."""
    unet, autoencoder, text, scheduler = {
        "clip": (SD1_UNET, SD1_AUTOENCODER, (SD1_TEXT,), SD1_SCHEDULER),
        "openclip": (SD2_UNET, SD2_AUTOENCODER, (SD2_TEXT,), SD2_SCHEDULER),
        "sdxl": (SDXL_UNET, SDXL_AUTOENCODER, (SD1_TEXT, SDXL_TEXT_2), SDXL_SCHEDULER),
        "sdxl-refiner": (REFINER_UNET, SDXL_AUTOENCODER, (SDXL_TEXT_2,), SDXL_SCHEDULER),
    }[family.text]
    if family.inpainting or family.instructed:
        unet = replace(unet, in_channels=INPAINTING_CHANNELS if family.inpainting else INSTRUCTED_CHANNELS)
    return Blueprint(family=family, unet=unet, autoencoder=autoencoder, text=text, scheduler=scheduler)


def family_of(unet: UNetConfig, autoencoder: AutoencoderConfig, text: TextKind) -> Family:
    """Return the family of networks with these configurations; "sfumato" if it is none of the published ones.

    Its default size is what the UNet was trained on. Raises ConfigError for input channels that we cannot fill.
    """
    latent = autoencoder.latent_channels
    if unet.in_channels not in (latent, 2 * latent, 2 * latent + 1) or unet.out_channels != latent:
        what = OTHER_INPUTS.get(unet.in_channels, f"{unet.in_channels} input and {unet.out_channels} output channels")
        raise ConfigError(
            f"The UNet is that of {what}; supported are UNets with {latent} channels ({2 * latent + 1} for inpainting, "
            f"{2 * latent} for InstructPix2Pix) for an autoencoder with {latent}."
        )
    ending = {2 * latent + 1: "-inpaint", 2 * latent: "-instruct"}.get(unet.in_channels, "")
    base = BASES.get((unet.block_out_channels[0], unet.cross_attention_dim))
    known = FAMILIES.get(f"{base}{ending}")
    if known is None or known.text != text:
        title = f"a model of {STYLES[text]}'s kind in its own sizes"
        known = Family(
            name="sfumato",
            title=title,
            text=text,
            size=known.size if known else 512,
            inpainting=ending == "-inpaint",
            instructed=ending == "-instruct",
        )
    size = unet.sample_size * autoencoder.stride if isinstance(unet.sample_size, int) else known.size
    return replace(known, size=size, latent_channels=latent)


def inpainting_family(family: Family) -> Family:
    """Return what a family is once it inpaints: its published one where there is one, with the model's own defaults."""
    if family.inpainting:
        return family
    known = FAMILIES.get(f"{family.name}-inpaint")
    name, title = (known.name, known.title) if known else (family.name, f"{family.title}, inpainting")
    return replace(family, name=name, title=title, inpainting=True)
