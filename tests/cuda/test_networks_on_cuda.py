"""Networks on a CUDA device in float32: the numbers of a CPU."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from random_networks import randomize, relative_error
from sfumato.diffusion.philox import Philox
from sfumato.nn.autoencoder import Autoencoder, AutoencoderConfig, decode_tiled
from sfumato.nn.banded import decode_banded
from sfumato.nn.clip import TextEncoder, TextEncoderConfig
from sfumato.nn.controlnet import ControlNet, ControlNetConfig
from sfumato.nn.norm import GroupNorm
from sfumato.nn.replay import AFTER, Replayed
from sfumato.nn.unet import UNet, UNetConfig

pytestmark = pytest.mark.gpu

# Sums in another order through some fifty layers are 1e-6 apart; cuDNN may choose Winograd's transforms for
# convolutions, whose rounding is ten times that of plain sums.
TOLERANCE = 5e-5
GRADIENTS = 2e-4  # the same again backwards

SD1 = UNetConfig(block_out_channels=(32, 64, 96, 96), cross_attention_dim=24, norm_num_groups=32, attention_head_dim=8)
SDXL = UNetConfig(
    block_out_channels=(32, 64, 96),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=24,
    attention_head_dim=(2, 4, 6),
    transformer_layers_per_block=(1, 2, 3),
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=20 + 6 * 8,
)
UNETS = {
    "SD 1.x": SD1,
    "SD 2.x": replace(SD1, attention_head_dim=(2, 4, 6, 6), use_linear_projection=True),
    "inpainting": replace(SD1, in_channels=9),
    "SDXL": SDXL,
}
AUTOENCODER = AutoencoderConfig(block_out_channels=(32, 32, 64, 64), norm_num_groups=16, layers_per_block=1)
Normal = Callable[..., Tensor]


def both(network: nn.Module, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """A network with random weights on the CPU, and its twin on the device, laid out as `load` lays it out there."""
    randomize(network)
    return network.eval(), deepcopy(network).eval().to(device).to(memory_format=torch.channels_last)


def inputs(config: UNetConfig, normal: Normal) -> dict[str, Tensor]:
    given = {
        "x": normal(2, config.in_channels, 18, 16),
        "timestep": torch.tensor([3.0, 481.25]),
        "context": normal(2, 7, 24),
    }
    if config.addition_embed_type is not None:
        given["pooled"] = normal(2, 20)
        given["size"] = torch.tensor([[1024.0, 768.0, 0.0, 8.0, 1024.0, 6.0], [512.0, 640.0, 4.0, 0.0, 900.0, 2.5]])
    return given


def there(given: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: each.to(device) for name, each in given.items()}


def check(name: str, found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    error = relative_error(found.cpu(), expected)
    print(f"{name}: {error:.1e}")
    assert error <= tolerance


@pytest.mark.parametrize("family", UNETS)
@torch.no_grad()
def test_unet_equals_that_on_a_cpu(family: str, normal: Normal, device: torch.device) -> None:
    here, twin = both(UNet(UNETS[family]), device)
    given = inputs(UNETS[family], normal)
    check(family, twin(**there(given, device)), here(**given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("family", UNETS)
@torch.no_grad()
def test_a_replayed_step_is_the_unet_s_own(
    family: str, dtype: torch.dtype, normal: Normal, device: torch.device
) -> None:
    config = UNETS[family]
    unet = UNet(config).eval()
    randomize(unet, seed=1)
    unet.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    replayed = Replayed(unet)
    kept = []
    for number in range(AFTER + 3):
        x, context = normal(2, config.in_channels, 16, 16), normal(2, 77, 24)
        more = (normal(2, 20).to(device, dtype), torch.full((2, 6), 64.0, device=device)) if family == "SDXL" else ()
        given = x.to(device, dtype), torch.full((2,), 100.0 * number, device=device), context.to(device, dtype), *more
        kept.append((replayed(*given), unet(*given)))
    assert len(replayed.recordings) == (device.type == "cuda")
    assert all(torch.equal(found, expected) for found, expected in kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_a_large_map_is_normalised_as_in_float64(dtype: torch.dtype, normal: Normal, device: torch.device) -> None:
    norm = GroupNorm(4, 32, eps=1e-6)
    randomize(norm, seed=2)
    x = (3 + 2 * normal(2, 32, 160, 128)).to(dtype)
    expected = deepcopy(norm).double()(x.double())
    found = norm.to(device, dtype)(x.to(device)).cpu()
    rounding = 2e-3 if dtype is torch.float16 else 1e-2
    assert relative_error(found.double(), expected) <= rounding


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_those_on_a_cpu(checkpointing: bool, normal: Normal, device: torch.device) -> None:
    here, twin = both(UNet(SDXL), device)
    twin.gradient_checkpointing = checkpointing
    given = inputs(SDXL, normal)
    for network, told in ((here, given), (twin, there(given, device))):
        network(**told).square().mean().backward()
    expected, found = (
        torch.cat([each.grad.flatten().cpu() for each in network.parameters()]) for network in (here, twin)
    )
    check("gradients", found, expected, GRADIENTS)


@torch.no_grad()
def test_autoencoder_equals_that_on_a_cpu(normal: Normal, device: torch.device) -> None:
    here, twin = both(Autoencoder(AUTOENCODER), device)
    pixels, latent = normal(1, 3, 72, 64).clamp(-1, 1), normal(1, 4, 9, 8)
    expected, found = here.encode(pixels), twin.encode(pixels.to(device))
    check("mean", found.mean, expected.mean)
    check("std", found.std, expected.std)
    check("decoded", twin.decode(latent.to(device)), here.decode(latent))
    large = normal(1, 4, 40, 36)
    whole = here.decode(large)
    check("in bands", decode_banded(twin, large.to(device), band=1 << 18), whole)
    check("in tiles", decode_tiled(twin, large.to(device), tile=24), decode_tiled(here, large, tile=24))


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_text_encoder_equals_that_on_a_cpu(kind: str, normal: Normal, device: torch.device) -> None:
    config = TextEncoderConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        hidden_act=kind,
        projection_dim=48,
        bos_token_id=498,
        eos_token_id=499,
        with_projection=kind == "gelu",
    )
    here, twin = both(TextEncoder(config), device)
    ids = torch.randint(0, 498, (2, 77), generator=torch.Generator().manual_seed(5))
    ids[0, 9:], ids[1, 40:] = 499, 499
    expected, found = here(ids), twin(ids.to(device))
    check("last", found.last, expected.last)
    check("pooled", found.pooled, expected.pooled)
    check("penultimate", found.hidden[-2], expected.hidden[-2])


@torch.no_grad()
def test_controlnet_equals_that_on_a_cpu(normal: Normal, device: torch.device) -> None:
    here, twin = both(ControlNet(ControlNetConfig(SD1)), device)
    given, picture = inputs(SD1, normal), normal(2, 3, 144, 128).sigmoid()
    found = twin(**there(given, device), seen=twin.see(picture.to(device)))
    expected = here(**given, seen=here.see(picture))
    for number, (one, other) in enumerate(zip(found.skips, expected.skips, strict=True)):
        check(f"skip {number}", one, other)
    check("middle", found.middle, expected.middle)


def test_philox_equals_this_devices_random_numbers(device: torch.device) -> None:
    """Three calls of one generator: the stream that A1111's pictures begin with."""
    if device.type != "cuda":
        pytest.skip("only a CUDA device has these numbers")
    generator, emulated = torch.Generator(device).manual_seed(2**40 + 3), Philox(2**40 + 3)
    for _ in range(3):
        real = torch.randn((4, 64, 64), generator=generator, device=device)
        assert float((real.cpu() - torch.from_numpy(emulated.normal((4, 64, 64)))).abs().max()) <= 5e-6
