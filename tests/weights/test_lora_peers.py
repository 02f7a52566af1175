"""LoRA files against the libraries that everybody trains and draws with: theirs read here, ours read there."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from weights_loras import MIXED, random_lora

from sfumato.model import Model
from sfumato.nn.lora import Target, adaptable
from sfumato.request import Lora
from sfumato.weights.load import load
from sfumato.weights.lora import networks_of, with_loras
from sfumato.weights.lora_file import open_lora
from sfumato.weights.lora_names import ldm_paths
from sfumato.weights.lora_save import save_lora

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the reference implementations
    import peft
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SAME = 1e-5  # of a whole output in float32: theirs are added beside the weights, ours are merged
NOTICED = 1e-2  # what a random LoRA changes at the least
KINDS = ("sd1", "sdxl")
NAMES = {"sd1": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}
# Per-layer alphas that differ within the attention of one kohya file are lost by diffusers 0.42, which takes the most
# frequent one for all of them (loaders/lora_conversion_utils.py puts `.processor` into their names). Ranks may differ.
# Nor does it know the added embedding of SDXL by its own name in such a file, only by latent-diffusion's.
EVEN = {
    "unet": (
        Target("*.attn2.*", 2, 6.0),
        Target("*.resnets.*", 3, 4.5),
        Target("*attentions.*", 4, 6.0),
        Target("*samplers.*", 2),
        Target("conv_*", 2),
        Target("time_embedding.*", 2),
    ),
    "text_encoder": (Target("*.mlp.*", 5, 2.5), Target("*.layers.*", 4, 2.5)),
    "text_encoder_2": (Target("*.fc1", 3, 0.3), Target("*.layers.*", 2, 0.3)),
}
UNET_LAYERS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "ff.net.0.proj",
    "conv1",
    "conv_shortcut",
    "time_emb_proj",
]
UNET_LAYERS += ["downsamplers.0.conv", "upsamplers.0.conv", "conv_in"]
TEXT_LAYERS = ["q_proj", "v_proj", "fc1"]


def config(layers: list[str], *, even: bool = False, **options: Any) -> peft.LoraConfig:
    """Ranks that differ between layers, and alphas too, or all of them equal to the ranks."""
    ranks = {"to_k": 2} if layers is UNET_LAYERS else {"fc1": 5}
    alphas = {"to_q": 1.5, "conv1": 2} if layers is UNET_LAYERS else {"fc1": 2}
    given = {"lora_alpha": 3 if even else 6, "alpha_pattern": ranks if even else alphas}
    return peft.LoraConfig(r=3, target_modules=layers, rank_pattern=ranks, **given, **options)


def randomised(network: Any, seed: int = 0) -> Any:
    """A network whose adapters have learnt something."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return network


class Peer:
    """A pipeline of diffusers of its own, and the same weights as ours."""

    def __init__(self, kind: str, pipelines: Callable[[str], tuple[Any, Path]]) -> None:
        made, folder = pipelines(kind)
        parts = {name: copy.deepcopy(part) for name, part in made.components.items()}
        rest = {"requires_safety_checker": False} if kind == "sd1" else {"add_watermarker": False}
        self.pipeline = {"sd1": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}[kind](**parts, **rest)
        self.kind, self.ours = kind, load(folder)

    @torch.no_grad()
    def outputs(self) -> dict[str, Tensor]:
        """What each of their networks makes of the same input."""
        x, timestep, context, pooled, size = self.inputs()
        added = {} if pooled is None else {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": size}}
        found = {"unet": self.pipeline.unet(x, timestep, context, **added).sample}
        for name in NAMES[self.kind]:
            found[name] = getattr(self.pipeline, name)(IDS, output_hidden_states=True).hidden_states[-1]
        return found

    @torch.no_grad()
    def our_outputs(self, model: Model) -> dict[str, Tensor]:
        """What each of our networks makes of it."""
        networks = networks_of(model)
        return {
            name: network(*self.inputs()) if name == "unet" else network(IDS).hidden[-1]
            for name, network in networks.items()
        }

    def inputs(self) -> tuple[Tensor | None, ...]:
        config = self.ours.unet.config
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(1, 4, 8, 8, generator=generator)
        context = torch.randn(1, 5, config.cross_attention_dim, generator=generator)
        if self.kind == "sd1":
            return x, torch.tensor([501.0]), context, None, None
        pooled = torch.randn(1, self.ours.text.encoders[-1].config.projection_dim, generator=generator)
        return x, torch.tensor([501.0]), context, pooled, torch.tensor([[16.0, 16, 0, 0, 16, 16]])

    def check(self, path: Path, *, networks: tuple[str, ...] | None = None) -> None:
        """Our networks with this LoRA give what theirs give now, which is not what they gave before."""
        before, theirs = self.our_outputs(self.ours), self.outputs()
        ours = self.our_outputs(with_loras(self.ours, [Lora(str(path))]))
        for name in theirs if networks is None else networks:
            assert difference(before[name], theirs[name]) > NOTICED, name
            assert difference(ours[name], theirs[name]) < SAME, name


IDS = torch.tensor([[550, 3, 7, 9, 20, 551, 551, 551]])


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(params=KINDS)
def peer(request: pytest.FixtureRequest, pipelines: Callable[[str], tuple[Any, Path]]) -> Peer:
    return Peer(request.param, pipelines)


def adapted(peer: Peer, **options: Any) -> dict[str, Any]:
    """Adapters of peft's in each of their networks; the configurations by network."""
    configs = {"unet": config(UNET_LAYERS, **options)}
    randomised_networks = [("unet", peer.pipeline.unet)]
    for name in NAMES[peer.kind]:
        configs[name] = config(TEXT_LAYERS, **options)
        randomised_networks.append((name, getattr(peer.pipeline, name)))
    for number, (name, network) in enumerate(randomised_networks):
        network.add_adapter(configs[name])
        randomised(network, number)
    return configs


def states(peer: Peer) -> dict[str, dict[str, Tensor]]:
    networks = {"unet": peer.pipeline.unet, **{name: getattr(peer.pipeline, name) for name in NAMES[peer.kind]}}
    return {name: peft.get_peft_model_state_dict(network) for name, network in networks.items()}


def test_what_diffusers_saves_is_read_with_every_alpha(peer: Peer, tmp_path: Path) -> None:
    configs = adapted(peer)
    layers = {f"{name}_lora_layers": state for name, state in states(peer).items()}
    told = {f"{name}_lora_adapter_metadata": configs[name].to_dict() for name in configs}
    type(peer.pipeline).save_lora_weights(tmp_path, **layers, **told)
    assert open_lora(tmp_path).dialect == "peft"
    peer.check(tmp_path)


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
def test_what_diffusers_converts_is_read(peer: Peer, tmp_path: Path, dialect: str) -> None:
    adapted(peer, even=True)  # a scale of 1: these files have no other
    whole = {f"{name}.{key}": value for name, state in states(peer).items() for key, value in state.items()}
    if dialect == "kohya":
        tensors = convert_state_dict_to_kohya(whole)
    else:
        tensors = convert_state_dict_to_diffusers({key: value for key, value in whole.items() if "unet" not in key})
        tensors |= {
            key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): value
            for key, value in whole.items()
            if key.startswith("unet.")
        }
    path = tmp_path / "a.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    assert open_lora(path).dialect == dialect
    peer.check(path)


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_saves_is_read_for_the_unet(peer: Peer, tmp_path: Path, rslora: bool) -> None:
    network = randomised(peft.get_peft_model(peer.pipeline.unet, config(UNET_LAYERS, use_rslora=rslora)))
    network.save_pretrained(tmp_path)
    peer.check(tmp_path, networks=("unet",))


def test_what_peft_saves_is_read_for_the_text_encoder(peer: Peer, tmp_path: Path) -> None:
    network = randomised(peft.get_peft_model(peer.pipeline.text_encoder, config(TEXT_LAYERS)))
    network.save_pretrained(tmp_path)
    peer.check(tmp_path, networks=("text_encoder",))


@pytest.mark.parametrize("dialect", ["diffusers", "peft", "kohya"])
def test_what_is_written_here_changes_diffusers_networks_in_the_same_way(
    peer: Peer, tmp_path: Path, dialect: str
) -> None:
    made = random_lora(peer.ours, EVEN if dialect == "kohya" else MIXED)
    path = save_lora(tmp_path / "ours.safetensors", made, dialect=dialect)
    peer.pipeline.load_lora_weights(str(path))
    peer.check(path)


def test_latent_diffusions_names_mean_the_same_in_diffusers(
    pipelines: Callable[[str], tuple[Any, Path]], tmp_path: Path
) -> None:
    peer = Peer("sdxl", pipelines)
    unet = peer.ours.unet
    names = {path: name for name, path in ldm_paths(unet.config, adaptable(unet)).items()}
    tensors: dict[str, Tensor] = {}
    for path, adapter in random_lora(
        peer.ours, {"unet": (Target("*attentions.*", 4, 2.0), Target("*resnets.*conv*", 2, 2.0))}
    )["unet"].items():
        name = f"lora_unet_{names[path]}"
        tensors |= {f"{name}.lora_down.weight": adapter.down, f"{name}.lora_up.weight": adapter.up}
        tensors[f"{name}.alpha"] = torch.tensor(adapter.alpha)
    save_file({key: value.detach().clone() for key, value in tensors.items()}, tmp_path / "ldm.safetensors")
    state, alphas = peer.pipeline.lora_state_dict(
        str(tmp_path / "ldm.safetensors"), unet_config=peer.pipeline.unet.config
    )
    peer.pipeline.load_lora_into_unet(state, network_alphas=alphas, unet=peer.pipeline.unet)
    peer.check(tmp_path / "ldm.safetensors", networks=("unet",))


def test_a_weight_is_the_scale_of_diffusers(peer: Peer, tmp_path: Path) -> None:
    path = save_lora(tmp_path / "ours.safetensors", random_lora(peer.ours), dialect="peft")
    peer.pipeline.load_lora_weights(str(path), adapter_name="one")
    peer.pipeline.set_adapters(["one"], [{"unet": -0.4, **dict.fromkeys(NAMES[peer.kind], 0.7)}])
    theirs, ours = peer.outputs(), peer.our_outputs(with_loras(peer.ours, [Lora(str(path), -0.4, 0.7)]))
    for name in theirs:
        assert difference(ours[name], theirs[name]) < SAME
