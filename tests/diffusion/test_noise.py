"""Where random numbers come from: the promises of each mode, and that nothing else draws any."""

import ast
import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from sfumato.diffusion.noise import MODES, Mode, image_seeds, key, keyed_generator, noise_source, start_noise
from sfumato.diffusion.philox import Philox, philox_4x32
from sfumato.errors import RequestError

SHAPE = (4, 9, 7)
SOURCE = Path(__file__).parents[2] / "src" / "sfumato"


def test_start_noise_is_torchs_with_one_cpu_generator_an_image() -> None:
    expected = torch.randn(SHAPE, generator=torch.Generator("cpu").manual_seed(42))
    assert torch.equal(start_noise(42, SHAPE), expected)
    assert start_noise(42, SHAPE).dtype == torch.float32


def test_start_noise_equals_diffusers_with_one_generator_an_image() -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8, 9)]
    expected = randn_tensor((3, *SHAPE), generator=generators, device=torch.device("cpu"), dtype=torch.float32)
    for mode in ("keyed", "sequential"):
        assert torch.equal(noise_source(mode, image_seeds(7, 3), SHAPE).start(), expected)


def test_sequential_noise_continues_each_generator_as_diffusers_does() -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    source = noise_source("sequential", (7, 8), SHAPE)
    for found in (source.draw("posterior"), source.start(), source.step(0), source.step(1)):
        expected = randn_tensor((2, *SHAPE), generator=generators, device=torch.device("cpu"), dtype=torch.float32)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_noise_does_not_depend_on_the_batch_or_the_place_in_it(mode: Mode) -> None:
    seeds = image_seeds(100, 5)
    whole = noise_source(mode, seeds, SHAPE)
    drawn = torch.stack([whole.start(), whole.draw("posterior"), whole.step(0), whole.step(7)])
    for order in ([3], [4, 0], [2, 1, 0, 3, 4]):
        part = noise_source(mode, [seeds[place] for place in order], SHAPE)
        found = torch.stack([part.start(), part.draw("posterior"), part.step(0), part.step(7)])
        assert torch.equal(found, drawn[:, order])


def test_keyed_noise_does_not_depend_on_order_or_repetition() -> None:
    one, other = noise_source("keyed", (1, 2), SHAPE), noise_source("keyed", (1, 2), SHAPE)
    forwards = [one.step(index) for index in range(4)]
    backwards = [other.step(index) for index in (3, 2, 2, 1, 0)]
    for index, place in enumerate((4, 3, 1, 0)):
        assert torch.equal(forwards[index], backwards[place])
    assert torch.equal(one.start(), other.start())


def test_keyed_draws_are_apart_for_seed_purpose_and_draw() -> None:
    keys = {key(seed, purpose, draw) for seed in range(20) for purpose in ("step", "posterior") for draw in range(50)}
    assert len(keys) == 20 * 2 * 50
    assert key(11, "step", 1) != key(1, "step", 11) != key(1, "step1", 1)
    assert torch.equal(
        keyed_generator(5, "mask").get_state(), torch.Generator().manual_seed(key(5, "mask")).get_state()
    )


def test_keys_are_the_first_64_bits_of_blake2b() -> None:
    # b2sum -l 64 of "42|step|3", read little-endian
    assert key(42, "step", 3) == int.from_bytes(bytes.fromhex(BLAKE2B_OF_42_STEP_3), "little")


BLAKE2B_OF_42_STEP_3 = "004b6ad85dfb6670"


def test_precision_and_device_are_set_after_drawing() -> None:
    double = noise_source("keyed", (3,), SHAPE, dtype=torch.float64)
    assert double.step(0).dtype == torch.float64
    assert torch.equal(double.step(0).float(), noise_source("keyed", (3,), SHAPE).step(0))


@pytest.mark.parametrize("mode", MODES)
def test_noise_is_standard_normal(mode: Mode) -> None:
    values = noise_source(mode, (9,), (4, 64, 64)).step(0).flatten().double()
    # 16,384 values: three standard errors are 0.023 of the mean and 0.017 of the deviation
    assert abs(float(values.mean())) < 0.024
    assert abs(float(values.std()) - 1) < 0.017
    assert abs(statistics.correlation(values[:-1].tolist(), values[1:].tolist())) < 0.024


def test_seeds_of_a_request_count_up_and_wrap_at_64_bits() -> None:
    assert image_seeds(5, 3) == [5, 6, 7]
    assert image_seeds(2**64 - 1, 2) == [2**64 - 1, 0]
    for seed in image_seeds(2**64 - 1, 2):
        for mode in MODES:
            assert noise_source(mode, (seed,), SHAPE).start().isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_a_step_delta_begins_the_noise_of_the_steps_anew_and_leaves_the_start(mode: Mode) -> None:
    """As A1111's ImageRNG does with ENSD: after the first latent its generators are those of seed + delta."""
    plain, moved = noise_source(mode, (5,), SHAPE), noise_source(mode, (5,), SHAPE, step_delta=31337)
    other = noise_source(mode, (5 + 31337,), SHAPE)
    assert torch.equal(plain.start(), moved.start())
    for index in range(3):
        assert torch.equal(moved.step(index), other.step(index))


def test_philox_draws_the_start_first_and_then_the_steps_whatever_else_is_drawn() -> None:
    """A1111's posteriors do not come from its images' generators."""
    source, alone = noise_source("philox", (5,), SHAPE), Philox(5)
    source.draw("posterior")
    assert torch.equal(source.start()[0], torch.from_numpy(alone.normal(SHAPE)))
    source.draw("masked")
    assert torch.equal(source.step(0)[0], torch.from_numpy(alone.normal(SHAPE)))


def test_an_unknown_mode_names_the_field() -> None:
    with pytest.raises(RequestError, match="keyed, sequential, philox") as caught:
        noise_source("gpu", (1,), SHAPE)  # type: ignore[arg-type]
    assert caught.value.field == "noise"


# What torch.randn(3, 4) gives with seed 0 on a CUDA device, as A1111 documents it beside its own emulation
CUDA_SEED_0 = (
    (-0.92466259, -0.42534415, -2.6438457, 0.14518388),
    (-0.12086647, -0.57972564, -0.62285122, -0.32838709),
    (-1.07454231, -0.36314407, -1.67105067, 2.26550497),
)


def test_philox_equals_cudas_random_numbers() -> None:
    # a CUDA device takes sine and logarithm to about 1e-6
    assert Philox(0).normal((3, 4)) == pytest.approx(np.array(CUDA_SEED_0), abs=2e-6)


def test_philox_equals_the_published_known_answers() -> None:
    """Random123's kat_vectors for philox4x32 with 10 rounds."""

    def run(counter: list[int], key: tuple[int, int]) -> list[int]:
        words = [np.array([word], dtype=np.uint32) for word in counter]
        return [int(word[0]) for word in philox_4x32((words[0], words[1], words[2], words[3]), key)]

    assert run([0, 0, 0, 0], (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert run([ones] * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert run(pi, (0xA4093822, 0x299F31D0)) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_each_philox_call_goes_on_in_the_stream() -> None:
    philox = Philox(3)
    calls = [philox.normal((5,)) for _ in range(4)]
    assert all(not np.array_equal(one, other) for one, other in pairwise(calls))
    assert np.array_equal(Philox(3).normal((5,)), calls[0])


@pytest.mark.parametrize("mode", MODES)
def test_drawing_leaves_the_global_generator_alone(mode: Mode) -> None:
    before = torch.get_rng_state()
    source = noise_source(mode, (1, 2), SHAPE)
    source.start(), source.draw("posterior"), source.step(0)
    assert torch.equal(torch.get_rng_state(), before)


DRAWS = {"randn", "rand", "randint", "randperm", "normal", "bernoulli", "multinomial"}
ALWAYS_GLOBAL = {"manual_seed", "seed", "randn_like", "rand_like", "randint_like", "normal_", "uniform_", "dropout"}

OWN_STREAM = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox"}


def drawing_calls() -> list[str]:
    """Calls in the package that would read or set the global generator of torch, numpy or random."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner, name = ast.unparse(node.func.value), node.func.attr
            keywords = {keyword.arg for keyword in node.keywords}
            on_torch = owner == "torch" and (name in DRAWS | ALWAYS_GLOBAL) and "generator" not in keywords
            in_place = name in ("normal_", "uniform_", "trunc_normal_") and "generator" not in keywords
            on_numpy = owner in ("np.random", "numpy.random") and name not in OWN_STREAM
            seedless = name == "default_rng" and not node.args
            if on_torch or in_place or on_numpy or seedless or (owner == "random" and name != "Random"):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno} {owner}.{name}")
    return found


def test_nothing_in_the_package_touches_a_global_generator() -> None:
    assert drawing_calls() == []
