"""The names of LoRA files, against what other programs call them, and back for every layer of every family."""

import pytest

from sfumato.nn.change import changeable
from sfumato.nn.clip import TextEncoder
from sfumato.nn.lora import adaptable
from sfumato.nn.unet import UNet
from sfumato.weights.build import on_meta
from sfumato.weights.families import SD2, SD15, SDXL, SDXL_REFINER, blueprint
from sfumato.weights.ldm import unet_naming
from sfumato.weights.lora_names import Key, dotted_name, kohya_name, ldm_paths, parse, unflatten

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
FLAT = "down_blocks_0_attentions_0_transformer_blocks_0"
LAYER = "text_model.encoder.layers.0"
FLAT_LAYER = "text_model_encoder_layers_0"

# As sd-scripts, diffusers' and peft's trainers have written them.
PUBLISHED = {
    f"lora_unet_{FLAT}_attn1_to_q.lora_down.weight": Key("kohya", "unet", f"{BLOCK}.attn1.to_q", "down"),
    f"lora_unet_{FLAT}_attn2_to_out_0.lora_up.weight": Key("kohya", "unet", f"{BLOCK}.attn2.to_out.0", "up"),
    f"lora_unet_{FLAT}_ff_net_0_proj.alpha": Key("kohya", "unet", f"{BLOCK}.ff.net.0.proj", "alpha"),
    f"lora_unet_{FLAT}_ff_net_2.alpha": Key("kohya", "unet", f"{BLOCK}.ff.net.2", "alpha"),
    "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": Key(
        "kohya", "unet", "mid_block.attentions.0.proj_in", "up"
    ),
    "lora_unet_up_blocks_3_resnets_2_time_emb_proj.alpha": Key(
        "kohya", "unet", "up_blocks.3.resnets.2.time_emb_proj", "alpha"
    ),
    "lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight": Key(
        "kohya", "unet", "down_blocks.0.downsamplers.0.conv", "down"
    ),
    "lora_unet_input_blocks_4_1_proj_in.alpha": Key("kohya", "unet", "input_blocks_4_1_proj_in", "alpha", ldm=True),
    f"lora_te_{FLAT_LAYER}_self_attn_q_proj.alpha": Key("kohya", "text_encoder", f"{LAYER}.self_attn.q_proj", "alpha"),
    f"lora_te1_{FLAT_LAYER}_mlp_fc1.lora_up.weight": Key("kohya", "text_encoder", f"{LAYER}.mlp.fc1", "up"),
    f"lora_te2_{FLAT_LAYER}_mlp_fc2.lora_down.weight": Key("kohya", "text_encoder_2", f"{LAYER}.mlp.fc2", "down"),
    "lora_te1_encoder_layers_0_mlp_fc2.alpha": Key("kohya", "text_encoder", f"{LAYER}.mlp.fc2", "alpha"),
    f"unet.{BLOCK}.attn1.to_q.lora.down.weight": Key("diffusers", "unet", f"{BLOCK}.attn1.to_q", "down"),
    f"text_encoder.{LAYER}.self_attn.q_proj.lora_linear_layer.up.weight": Key(
        "diffusers", "text_encoder", f"{LAYER}.self_attn.q_proj", "up"
    ),
    f"unet.{BLOCK}.attn1.to_out.0.lora_A.weight": Key("peft", "unet", f"{BLOCK}.attn1.to_out.0", "down"),
    f"unet.{BLOCK}.attn1.to_v.lora_B.default.weight": Key("peft", "unet", f"{BLOCK}.attn1.to_v", "up"),
    "text_encoder_2.encoder.layers.0.mlp.fc1.lora_B.weight": Key("peft", "text_encoder_2", f"{LAYER}.mlp.fc1", "up"),
    f"base_model.model.{BLOCK}.attn2.to_k.lora_A.weight": Key(
        "peft", "unet", f"{BLOCK}.attn2.to_k", "down", told=False
    ),
    f"base_model.model.{LAYER}.self_attn.k_proj.lora_B.weight": Key(
        "peft", "text_encoder", f"{LAYER}.self_attn.k_proj", "up", told=False
    ),
    f"{BLOCK}.attn1.processor.to_q_lora.down.weight": Key(
        "diffusers-old", "unet", f"{BLOCK}.attn1.to_q", "down", told=False
    ),
    f"unet.{BLOCK}.attn2.processor.to_out_lora.up.weight": Key(
        "diffusers-old", "unet", f"{BLOCK}.attn2.to_out.0", "up"
    ),
    f"text_encoder.{LAYER}.self_attn.to_out_lora.down.weight": Key(
        "diffusers-old", "text_encoder", f"{LAYER}.self_attn.out_proj", "down"
    ),
    # SimpleTuner with LyCORIS, OneTrainer, and ComfyUI's nodes that train, extract and save
    f"lycoris_{FLAT}_attn1_to_q.lokr_w1": Key("kohya", "unet", f"{BLOCK}.attn1.to_q", "lokr_w1"),
    f"lora_unet_{FLAT}_attn1_to_q.lora_A.weight": Key("kohya", "unet", f"{BLOCK}.attn1.to_q", "down"),
    f"unet.{BLOCK}.attn1.to_q.lora_up.weight": Key("kohya", "unet", f"{BLOCK}.attn1.to_q", "up"),
    f"lora_unet.{BLOCK}.attn1.to_q.lora_down.weight": Key("kohya", "unet", f"{BLOCK}.attn1.to_q", "down"),
    f"lora_te2.{LAYER}.mlp.fc1.lora_up.weight": Key("kohya", "text_encoder_2", f"{LAYER}.mlp.fc1", "up"),
    "diffusion_model.input_blocks.1.1.proj_in.lora_up.weight": Key(
        "comfyui", "unet", "input_blocks_1_1_proj_in", "up", ldm=True
    ),
    "diffusion_model.out.2.diff_b": Key("comfyui", "unet", "out_2", "diff_b", ldm=True),
    f"text_encoders.clip_l.transformer.{LAYER}.mlp.fc1.lora_down.weight": Key(
        "comfyui", "text_encoder", f"{LAYER}.mlp.fc1", "down"
    ),
    f"clip_g.transformer.{LAYER}.mlp.fc2.lora_up.weight": Key("comfyui", "text_encoder_2", f"{LAYER}.mlp.fc2", "up"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_is_understood(name: str) -> None:
    assert parse(name) == PUBLISHED[name]


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.0.0.weight",
        "lora_te_text_model_encoder_layers_0_self_attn_x_proj.alpha",
        "lora_unet_mid_block.attentions_0.lora_down.weight",
        "lora_prior_down_blocks_0.alpha",
        "unet.down_blocks.0.attentions.0.proj_in.weight",
        "unet.transformer.layers.0.lora_A.weight",
        "unet.down_blocks_0.proj_in.lora_A.weight",
        "lora_unet_.alpha",
        "",
    ],
)
def test_a_name_that_is_no_layers_is_not_understood(name: str) -> None:
    found = parse(name)
    assert found is None or found.ldm  # latent-diffusion's names are looked up in the network


@pytest.mark.parametrize("family", [SD15, SD2, SDXL, SDXL_REFINER], ids=lambda each: each.name)
def test_every_layer_of_a_family_comes_back_from_every_dialect(family) -> None:
    build = blueprint(family)
    unet = on_meta(lambda: UNet(build.unet))
    layers = {("unet", path) for path in adaptable(unet)}
    for number, config in enumerate(build.text):
        encoder = on_meta(lambda config=config: TextEncoder(config))
        layers |= {(f"text_encoder{'_2' if number else ''}", path) for path in adaptable(encoder)}
    ldm = ldm_paths(build.unet, adaptable(unet))
    assert sorted(ldm.values()) == sorted(adaptable(unet))
    for network, path in layers:
        assert unflatten(path.replace(".", "_"), network) == path
        name = kohya_name(network, path, towers=len(build.text))
        assert name.count(".") == 0
        assert parse(f"{name}.alpha") == Key("kohya", network, path, "alpha")
        for dialect in ("diffusers", "peft"):
            found = [parse(each) for each in dotted_name(network, path, dialect)]
            assert found == [Key(dialect, network, path, "down"), Key(dialect, network, path, "up")]


@pytest.mark.parametrize("family", [SD15, SDXL], ids=lambda each: each.name)
def test_every_layer_of_a_unet_comes_back_from_comfyuis_names_norms_too(family) -> None:
    """They are those of the single file, where the same is checked with diffusers' converter."""
    config = blueprint(family).unet
    unet = on_meta(lambda: UNet(config))
    layers = changeable(unet)
    assert any("norm" in path for path in layers)
    ldm = ldm_paths(config, layers)
    for rule in unet_naming(config, [f"{path}.weight" for path in layers]):
        found = parse(f"diffusion_model.{rule.theirs.removesuffix('.weight')}.diff")
        assert found is not None
        assert f"{ldm[found.path]}.weight" == rule.ours[0]


def test_latent_diffusions_names_of_sdxl_are_those_of_sd_scripts() -> None:
    config = blueprint(SDXL).unet
    ldm = ldm_paths(config, adaptable(on_meta(lambda: UNet(config))))
    assert ldm["input_blocks_4_1_proj_in"] == "down_blocks.1.attentions.0.proj_in"
    assert (
        ldm["input_blocks_8_1_transformer_blocks_9_ff_net_2"]
        == "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2"
    )
    assert (
        ldm["middle_block_1_transformer_blocks_0_attn2_to_k"]
        == "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    )
    assert ldm["output_blocks_5_2_conv"] == "up_blocks.1.upsamplers.0.conv"
    assert ldm["input_blocks_3_0_op"] == "down_blocks.0.downsamplers.0.conv"
    assert ldm["output_blocks_0_0_skip_connection"] == "up_blocks.0.resnets.0.conv_shortcut"
    assert ldm["input_blocks_1_0_emb_layers_1"] == "down_blocks.0.resnets.0.time_emb_proj"
    assert ldm["label_emb_0_0"] == "add_embedding.linear_1"
    assert ldm["out_2"] == "conv_out"
