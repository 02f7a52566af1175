"""Training on a CUDA device: the losses of a CPU, and runs that go on after an interruption.

PyTorch promises equal bits on one device only under `torch.use_deterministic_algorithms`; without it, the backward
passes of attention and of some convolutions add up in any order.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "train"))
tiny = pytest.importorskip("tiny_start", reason="what the training tests share needs diffusers")

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

FIRST = 1e-3  # of the first loss: latents are encoded there too, and kept in float16
LATER = 2e-2  # of the others: Adam's first steps are as long for gradients that are nothing but rounding
AGAIN = 5e-3  # of the loss after some steps whose sums had another order


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.plain_pictures(tmp_path_factory.mktemp("pictures"))  # type: ignore[no-any-return]


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def sections(kind: str, pictures: Path, device: torch.device | str, **run: Any) -> dict[str, dict[str, Any]]:
    """The embedded model trained further on plain pictures."""
    found: dict[str, dict[str, Any]] = {
        "run": {"device": str(device), "batch": 2, "ema": 0.9, **run},
        "data": {"source": str(pictures), "size": 64},
        "start": {"model": "embedded"},
    }
    return {**found, "lora": {"rank": 4, "text": ["attention"]}} if kind == "lora" else found


@pytest.mark.parametrize("kind", ["unet", "lora"])
def test_the_losses_are_those_of_a_cpu(kind: str, pictures: Path, device: torch.device, tmp_path: Path) -> None:
    for name, place in (("here", torch.device("cpu")), ("there", device)):
        tiny.train(kind, tmp_path / name, sections(kind, pictures, place))
    here, there = tiny.losses(tmp_path / "here"), tiny.losses(tmp_path / "there")
    print(kind, here, there)
    assert there[0] == pytest.approx(here[0], rel=FIRST)
    assert there == pytest.approx(here, rel=LATER)
    assert len(here) == tiny.RUN["steps"]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["unet", "lora"])
def test_with_deterministic_algorithms_an_interruption_changes_no_bit(
    kind: str, precision: str, pictures: Path, device: torch.device, tmp_path: Path, deterministic: None
) -> None:
    tiny.assert_interruption_changes_nothing(kind, tmp_path, sections(kind, pictures, device, precision=precision))


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    precision: str, pictures: Path, device: torch.device, tmp_path: Path
) -> None:
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("float16 training is for GPUs")
    whole = sections("unet", pictures, device, precision=precision)
    tiny.train("unet", tmp_path / "whole", whole)
    tiny.train("unet", tmp_path / "parts", sections("unet", pictures, device, precision=precision, steps=2))
    tiny.train("unet", tmp_path / "parts", whole, resume=True)
    first, second = (tiny.state(tmp_path / name) for name in ("whole", "parts"))
    same = sum(torch.equal(first[key], second[key]) for key in first)
    print(f"{precision}: {same} of {len(first)} tensors have the same bits")
    assert tiny.losses(tmp_path / "parts") == pytest.approx(tiny.losses(tmp_path / "whole"), rel=AGAIN)


def test_recomputing_activations_changes_no_loss(pictures: Path, device: torch.device, tmp_path: Path) -> None:
    for name, again in (("kept", False), ("recomputed", True)):
        tiny.train("unet", tmp_path / name, sections("unet", pictures, device, recompute=again))
    assert tiny.losses(tmp_path / "recomputed") == pytest.approx(tiny.losses(tmp_path / "kept"), rel=1e-4)
