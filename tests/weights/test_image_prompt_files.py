"""IP-Adapters and image encoders in files: the published sizes, both namings, and wrong ones."""

from pathlib import Path

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import save_file
from weights_files import write_sparse

from sfumato.errors import WeightsError
from sfumato.nn.clip_vision import PUBLISHED, VIT_BIGG, VIT_H, VIT_L, ImageEncoder, VisionConfig
from sfumato.nn.ip_adapter import IPAdapter, IPAdapterConfig
from sfumato.nn.unet import UNet
from sfumato.weights.build import Placement, fill, on_meta
from sfumato.weights.control_file import open_control
from sfumato.weights.describe import describe
from sfumato.weights.families import SD1_UNET, SDXL_UNET
from sfumato.weights.image_encoder_file import open_image_encoder, openclip_vision_naming
from sfumato.weights.ip_adapter_file import ways
from sfumato.weights.naming import their_shapes

# huggingface.co/h94/IP-Adapter: models and sdxl_models
FILES = {
    "ip-adapter_sd15": (SD1_UNET, {"form": "plain", "seen": 1024}),
    "ip-adapter-plus_sd15": (
        SD1_UNET,
        {"form": "plus", "seen": 1280, "tokens": 16, "inner": 768, "layers": 4, "heads": 12},
    ),
    "ip-adapter-full-face_sd15": (SD1_UNET, {"form": "full", "seen": 1280}),
    "ip-adapter_sdxl": (SDXL_UNET, {"form": "plain", "seen": 1280}),
    "ip-adapter-plus_sdxl_vit-h": (
        SDXL_UNET,
        {"form": "plus", "seen": 1280, "tokens": 16, "inner": 1280, "layers": 4, "heads": 20},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_published_ip_adapter_is_recognised(name: str, tmp_path: Path) -> None:
    unet, sizes = FILES[name]
    down, up, middle = ways(on_meta(lambda: UNet(unet)))
    config = IPAdapterConfig(context=unet.cross_attention_dim, widths=(*down, *up, *middle), **sizes)
    shapes = {key: tuple(each.shape) for key, each in on_meta(lambda: IPAdapter(config)).state_dict().items()}
    known = {"image_proj.proj.weight", "image_proj.latents", "image_proj.proj.3.weight"} & shapes.keys()
    assert len(known) == 1
    last = 31 if unet is SD1_UNET else 139
    assert {"ip_adapter.1.to_k_ip.weight", f"ip_adapter.{last}.to_v_ip.weight"} <= shapes.keys()
    assert f"ip_adapter.{last + 2}.to_k_ip.weight" not in shapes
    path = write_sparse(tmp_path / f"{name}.safetensors", shapes)
    opened = open_control(path)
    assert (opened.kind, opened.family) == ("IP-Adapter", "sd15" if unet is SD1_UNET else "sdxl")
    assert opened.component.part.network.config == config
    assert describe(path).what == opened.title


def test_the_layers_of_sd15_have_the_published_widths() -> None:
    down, up, middle = ways(on_meta(lambda: UNet(SD1_UNET)))
    assert down == (320, 320, 640, 640, 1280, 1280)
    assert up == (1280, 1280, 1280, 640, 640, 640, 320, 320, 320)
    assert middle == (1280,)


@pytest.mark.parametrize("config", PUBLISHED, ids=["H", "bigG", "L"])
@pytest.mark.parametrize("form", ["transformers", "openclip"])
def test_a_published_image_encoder_in_one_file_is_recognised(config: VisionConfig, form: str, tmp_path: Path) -> None:
    state = on_meta(lambda: ImageEncoder(config)).state_dict()
    shapes = {name: tuple(each.shape) for name, each in state.items()}
    if form == "openclip":
        shapes = their_shapes(openclip_vision_naming(config), state)
    words = {"text_model.final_layer_norm.weight": (8,), "positional_embedding": (77, 8), "logit_scale": (1,)}
    path = write_sparse(tmp_path / "encoder.safetensors", {**shapes, **words})
    assert open_image_encoder(path).part.network.config == config


@pytest.mark.parametrize(("name", "config"), [("ViT-H-14", VIT_H), ("ViT-bigG-14", VIT_BIGG), ("ViT-L-14", VIT_L)])
def test_openclips_towers_have_the_names_and_shapes_that_we_read(name: str, config: VisionConfig) -> None:
    stated = open_clip.get_model_config(name)
    with torch.device("meta"):
        theirs = open_clip.model._build_vision_tower(stated["embed_dim"], stated["vision_cfg"])
    ours = on_meta(lambda: ImageEncoder(config)).state_dict()
    found = their_shapes(openclip_vision_naming(config), ours)
    assert found == {f"visual.{key}": tuple(each.shape) for key, each in theirs.state_dict().items()}


@torch.no_grad()
def test_an_image_encoder_in_openclips_names_equals_openclips(tmp_path: Path) -> None:
    config = VisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        projection_dim=24,
    )
    vision = {"layers": 2, "width": 128, "head_width": 64, "patch_size": 14, "image_size": 56, "mlp_ratio": 4.0}
    tower = open_clip.model._build_vision_tower(24, vision).eval()
    for parameter in tower.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    folder = tmp_path / "encoder"
    folder.mkdir()
    transformers.CLIPVisionConfig(**config.to_json()).save_pretrained(folder)
    save_file({f"visual.{k}": v.contiguous() for k, v in tower.state_dict().items()}, folder / "model.safetensors")
    opened = open_image_encoder(folder)
    fill(opened.part, opened.tensors, Placement(torch.device("cpu"), None))
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    expected = tower(pixels)
    found = opened.part.network(pixels).embedding
    assert (found - expected).norm() / expected.norm() <= 1e-5


def test_adapters_for_faces_and_encoders_of_other_sizes_are_refused(tmp_path: Path) -> None:
    face = {"ip_adapter.1.to_k_ip.weight": (320, 768), "image_proj.proj.0.weight": (1024, 512)}
    face |= {"image_proj.norm.weight": (768,), "ip_adapter.0.to_q_lora.down.weight": (128, 320)}
    with pytest.raises(WeightsError, match="FaceID"):
        open_control(write_sparse(tmp_path / "face.safetensors", face))
    small = VisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    save_file(ImageEncoder(small).state_dict(), tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match="no published size"):
        open_image_encoder(tmp_path / "small.safetensors")
    half = on_meta(lambda: ImageEncoder(VIT_L)).state_dict()
    shapes = {name: tuple(each.shape) for name, each in half.items() if "layers.3.mlp" not in name}
    with pytest.raises(WeightsError, match=r"4 tensors missing, first 'vision_model.encoder.layers.3.mlp"):
        open_image_encoder(write_sparse(tmp_path / "half.safetensors", shapes))
