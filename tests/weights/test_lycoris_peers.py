"""LoHa, LoKr, DoRA, OFT, BOFT, (IA)^3 and whole weights against LyCORIS, which made them, and against peft."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sfumato.model import Model
from sfumato.nn.change import changeable
from sfumato.nn.orthogonal import ButterflyInputs
from sfumato.request import Lora
from sfumato.weights.describe import describe
from sfumato.weights.load import load
from sfumato.weights.lora import networks_of, with_loras

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    import peft
    from lycoris.modules.boft import ButterflyOFTModule
    from lycoris.modules.diag_oft import DiagOFTModule
    from lycoris.modules.glora import GLoRAModule
    from lycoris.modules.ia3 import IA3Module
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule
    from lycoris.modules.norms import NormModule

pytestmark = pytest.mark.filterwarnings("ignore")

SAME = 1e-5  # of a whole weight or output in float32
NOTICED = 1e-3

# LyCORIS 4.1.3 multiplies by alpha / rank twice when it merges a LoHa or a LoKr: here it is 1, and below peft's.
KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "locon": (LoConModule, {"lora_dim": 4, "alpha": 2}),
    "locon-core": (LoConModule, {"lora_dim": 4, "alpha": 2, "use_tucker": True}),
    "dora": (LoConModule, {"lora_dim": 4, "alpha": 2, "weight_decompose": True}),
    "dora-inputs": (LoConModule, {"lora_dim": 4, "alpha": 2, "weight_decompose": True, "wd_on_out": False}),
    "loha": (LohaModule, {"lora_dim": 3, "alpha": 3}),
    "loha-core": (LohaModule, {"lora_dim": 3, "alpha": 3, "use_tucker": True}),
    "loha-dora": (LohaModule, {"lora_dim": 3, "alpha": 3, "weight_decompose": True}),
    "lokr": (LokrModule, {"lora_dim": 2, "alpha": 2, "factor": 4}),
    "lokr-both": (LokrModule, {"lora_dim": 1, "alpha": 1, "factor": 4, "decompose_both": True}),
    "lokr-whole": (LokrModule, {"lora_dim": 10000, "alpha": 1, "factor": 4, "full_matrix": True}),
    "lokr-core": (LokrModule, {"lora_dim": 2, "alpha": 2, "factor": 4, "use_tucker": True}),
    "lokr-dora": (LokrModule, {"lora_dim": 2, "alpha": 2, "factor": 4, "weight_decompose": True}),
    "oft": (DiagOFTModule, {"lora_dim": 4}),
    "oft-limited": (DiagOFTModule, {"lora_dim": 4, "constraint": 0.01}),
    "oft-scaled": (DiagOFTModule, {"lora_dim": 4, "rescaled": True}),
    "boft": (ButterflyOFTModule, {"lora_dim": 4}),
    "boft-scaled": (ButterflyOFTModule, {"lora_dim": 4, "rescaled": True}),
    "glora": (GLoRAModule, {"lora_dim": 3, "alpha": 2}),
    "ia3": (IA3Module, {}),
    "ia3-inputs": (IA3Module, {"train_on_input": True}),
}
LAYERS = ("attn1.to_q", "ff.net.0.proj", "resnets.0.conv1", "proj_in", "attn2.to_k")


@pytest.fixture(scope="module")
def model(pipelines: Callable[[str], tuple[Any, Path]]) -> Model:
    return load(pipelines("sd1")[1])


def layer_of(model: Model, end: str) -> tuple[str, nn.Module]:
    return next((path, layer) for path, layer in changeable(model.unet).items() if path.endswith(end))


def learnt(module: nn.Module, seed: int = 0) -> nn.Module:
    """A module of LyCORIS whose every parameter is random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "dora_scale" in name or "rescale" in name:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def made(kind: str, layer: nn.Module) -> nn.Module:
    cls, options = KINDS[kind]
    module = cls("x", copy.deepcopy(layer), **options)
    return learnt(module)


def written(path: Path, modules: dict[str, nn.Module], prefix: str = "lora_unet_") -> str:
    tensors = {}
    for layer, module in modules.items():
        state = module.custom_state_dict() or module.state_dict()
        for name, value in state.items():
            tensors[f"{prefix}{layer.replace('.', '_')}.{name}"] = value.detach().clone().contiguous()
    save_file(tensors, path)
    return str(path)


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [1.0, -0.7])
def test_what_lycoris_makes_of_a_weight_is_made_here(model: Model, tmp_path: Path, kind: str, weight: float) -> None:
    found = [layer_of(model, end) for end in LAYERS]
    modules = {path: made(kind, layer) for path, layer in found}
    changed = with_loras(model, [Lora(written(tmp_path / "a.safetensors", modules), weight)])
    layers, base = changeable(changed.unet), changeable(model.unet)
    for path, module in modules.items():
        with torch.no_grad():
            whole, bias = module.get_merged_weight(1.0, shape=base[path].weight.shape)
        expected = base[path].weight + weight * (whole - base[path].weight)
        assert difference(layers[path].weight, expected) < SAME, path
        assert difference(layers[path].weight, base[path].weight) > NOTICED, path
        if bias is not None and base[path].bias is not None:
            torch.testing.assert_close(layers[path].bias, base[path].bias + weight * (bias - base[path].bias))


def test_kohyas_own_oft_has_another_prefix(model: Model, tmp_path: Path) -> None:
    path, layer = layer_of(model, "attn1.to_q")
    module = made("oft", layer)
    name = written(tmp_path / "a.safetensors", {path: module}, prefix="oft_unet_")
    changed = changeable(with_loras(model, [Lora(name)]).unet)[path].weight
    assert difference(changed, module.get_merged_weight(1.0)[0]) < SAME


def test_whole_differences_are_added(model: Model, tmp_path: Path) -> None:
    path, layer = layer_of(model, "resnets.0.conv1")
    weight, bias = torch.randn(layer.weight.shape), torch.randn(layer.bias.shape)
    name = f"lora_unet_{path.replace('.', '_')}"
    save_file({f"{name}.diff": weight, f"{name}.diff_b": bias}, tmp_path / "a.safetensors")
    changed = changeable(with_loras(model, [Lora(str(tmp_path / "a.safetensors"), 0.5)]).unet)[path]
    torch.testing.assert_close(changed.weight, layer.weight + 0.5 * weight)
    torch.testing.assert_close(changed.bias, layer.bias + 0.5 * bias)


def test_norms_and_biases_are_changed_too(model: Model, tmp_path: Path) -> None:
    modules = {}
    for end in ("resnets.0.norm1", "transformer_blocks.0.norm2"):
        path, layer = layer_of(model, end)
        modules[path] = learnt(NormModule("x", copy.deepcopy(layer)))
    changed = changeable(with_loras(model, [Lora(written(tmp_path / "a.safetensors", modules))]).unet)
    base = changeable(model.unet)
    for path, module in modules.items():
        torch.testing.assert_close(changed[path].weight, base[path].weight + module.w_norm)
        torch.testing.assert_close(changed[path].bias, base[path].bias + module.b_norm)


def test_adapters_of_all_kinds_add_up_in_any_order(model: Model, tmp_path: Path) -> None:
    path, layer = layer_of(model, "attn1.to_q")
    kinds = ("locon", "loha", "oft", "dora", "ia3")
    names = [written(tmp_path / f"{kind}.safetensors", {path: made(kind, layer)}) for kind in kinds]
    loras = [Lora(name, 0.3 * (number + 1)) for number, name in enumerate(names)]
    base = changeable(model.unet)[path].weight
    alone = [changeable(with_loras(model, [each]).unet)[path].weight - base for each in loras]
    together = changeable(with_loras(model, loras).unet)[path].weight
    torch.testing.assert_close(together, base + sum(alone), rtol=1e-5, atol=1e-5)
    other = changeable(with_loras(model, loras[::-1]).unet)[path].weight
    torch.testing.assert_close(together, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_butterfly_of_several_levels_is_pefts_product_of_matrices(levels: int) -> None:
    """Without CUDA peft makes one level alone; its own permutations and rotations say what more are."""
    from peft.tuners.boft.layer import BOFTLayer

    count, size, outputs = 8, 4, 6
    inputs = count * size
    generator = torch.Generator().manual_seed(levels)
    blocks = torch.randn(levels, count, size, size, generator=generator, dtype=torch.float64)
    scale = torch.rand(outputs, 1, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    whole = torch.eye(inputs, dtype=torch.float64)
    for level in range(levels):
        order = BOFTLayer.block_butterfly_perm(None, inputs, count // 2**level, size // 2, levels - 1)
        shuffle = BOFTLayer.perm2mat(None, order).double()
        skew = (blocks[level] - blocks[level].mT) / 2
        one = torch.eye(size, dtype=torch.float64)
        turns = torch.linalg.solve(one + skew, one - skew, left=False)  # peft's cayley_batch
        whole = shuffle @ torch.block_diag(*turns) @ shuffle.T @ whole
    expected = (whole @ weight.T).T * scale
    assert difference(ButterflyInputs(blocks, scale).changed(weight), expected) < 1e-12


@pytest.mark.parametrize("kind", ["loha", "lokr", "oft", "ia3", "dora"])
def test_a_file_says_what_it_is(model: Model, tmp_path: Path, kind: str) -> None:
    path, layer = layer_of(model, "attn1.to_q")
    found = describe(Path(written(tmp_path / "a.safetensors", {path: made(kind, layer)})))
    assert found.lora is not None
    (group,) = found.lora.networks["unet"]
    titles = {"loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "ia3": "(IA)^3", "dora": "DoRA over LoRA"}
    assert group.kind == titles[kind]
    assert group.layers == 1


CONVOLUTIONS = ["conv1", "proj_in"]
TARGETS = ["to_q", "to_k", "to_out.0", "ff.net.0.proj"]
PEFT: dict[str, Callable[[], Any]] = {
    "lora-dora": lambda: peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=[*TARGETS, *CONVOLUTIONS]),
    "loha": lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=[*TARGETS, *CONVOLUTIONS]),
    "loha-core": lambda: peft.LoHaConfig(
        r=3, alpha=5, use_effective_conv2d=True, target_modules=[*TARGETS, *CONVOLUTIONS]
    ),
    "loha-ranks": lambda: peft.LoHaConfig(
        r=3, alpha=5, rank_pattern={"to_k": 2}, alpha_pattern={"to_q": 1}, target_modules=TARGETS
    ),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=[*TARGETS, *CONVOLUTIONS]),
    "lokr-whole": lambda: peft.LoKrConfig(r=64, alpha=3, target_modules=TARGETS),
    "lokr-both": lambda: peft.LoKrConfig(r=1, alpha=3, decompose_both=True, decompose_factor=4, target_modules=TARGETS),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=4, target_modules=TARGETS),
    "oft-exact": lambda: peft.OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=False, target_modules=TARGETS),
    "oft-shared": lambda: peft.OFTConfig(r=0, oft_block_size=4, block_share=True, target_modules=TARGETS),
    "oft-convolutions": lambda: peft.OFTConfig(r=0, oft_block_size=4, target_modules=CONVOLUTIONS),
    "boft": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=TARGETS),
    "boft-blocks": lambda: peft.BOFTConfig(boft_block_size=0, boft_block_num=2, target_modules=TARGETS),
    "boft-convolutions": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=CONVOLUTIONS),
    "ia3": lambda: peft.IA3Config(target_modules=TARGETS, feedforward_modules=["ff.net.0.proj"]),
    "ia3-convolutions": lambda: peft.IA3Config(target_modules=CONVOLUTIONS, feedforward_modules=["proj_in"]),
}


@pytest.mark.parametrize("kind", PEFT)
def test_what_peft_saves_does_here_what_it_does_there(
    model: Model, pipelines: Callable[[str], tuple[Any, Path]], tmp_path: Path, kind: str
) -> None:
    network = peft.get_peft_model(copy.deepcopy(pipelines("sd1")[0].unet), PEFT[kind]())
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "magnitude" in name or "ia3" in name:
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
            elif parameter.requires_grad:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    network.save_pretrained(tmp_path)
    x, timestep = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([501.0])
    context = torch.randn(1, 5, model.unet.config.cross_attention_dim, generator=generator)
    changed = with_loras(model, [Lora(str(tmp_path))])
    if kind.endswith("oft-convolutions"):  # beside a padded convolution peft does something else than merged into it
        network.merge_adapter()
    with torch.no_grad():
        theirs = network(x, timestep, context).sample
        ours, before = (each.unet(x, timestep, context) for each in (changed, model))
    assert difference(before, theirs) > NOTICED
    assert difference(ours, theirs) < SAME


def test_the_model_is_as_it_was_bit_for_bit(model: Model, tmp_path: Path) -> None:
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in networks_of(model).items()}
    for kind in KINDS:
        modules = {path: made(kind, layer) for path, layer in (layer_of(model, end) for end in LAYERS)}
        with_loras(model, [Lora(written(tmp_path / f"{kind}.safetensors", modules))])
    for name, network in networks_of(model).items():
        assert all(torch.equal(before[name][key], value) for key, value in network.state_dict().items())
