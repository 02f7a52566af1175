"""What a request holds in a GPU's memory, and the ways to run it in less."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from sfumato.memory.held import TILE, Held, parameters_of
from sfumato.memory.ledger import Doubled
from sfumato.memory.shape import Shape
from sfumato.model import autoencoder_dtype
from sfumato.nn.ip_adapter import Prompter
from sfumato.nn.resting import AHEAD

if TYPE_CHECKING:
    from sfumato.memory.plan import Plan

# What is held beside the tensors that are counted. Chosen wide, not measured: see docs/memory.md.
CONSTANT = 300 << 20  # bytes: kernels, which come with their first use, and what libraries take for themselves
SPARE = 1.25  # times what a network's tensors take: workspaces of convolutions, and holes between tensors
RECORDED = 2  # steps' worth of tensors where steps are recorded (`nn.replay`): the first ones' and the recording's own


Together = tuple[list[nn.Module], int, int]
"""Networks that are on the device together where weights move; bytes of a number of theirs, and of what they make."""


class HeldOnDevice(Held):
    """What a model and what is beside it hold on a GPU: weights that are there together, and what runs meanwhile."""

    def bytes(self, plan: "Plan") -> int:
        """Return the peak of a plan beyond what the process has there before."""
        return sum(self.parts(plan).values()) + CONSTANT

    def parts(self, plan: "Plan") -> dict[str, int]:
        """Return the bytes of the weights and of what the networks make, in the part of a run that takes most."""
        with Doubled():
            step = self._step(plan.apart).tensors
            decoding = self._autoencoder(plan.tiled_above).tensors
            enlarging = self._upscaler().tensors
        phases = [*self._phases(step, decoding)]
        pictures = self._shape.pixels * 3 * 4 * 4  # float32, while they become bytes
        upscaler = 0 if self._beside.upscaler is None else parameters_of(self._beside.upscaler) * 4  # float32; it stays
        if plan.moves:
            sizes = (
                (weights_of(found, width, by_layers=plan.streams), int(SPARE * made)) for found, width, made in phases
            )
            weights, running = max(sizes, key=sum)
            return {"weights": weights + upscaler, "running": max(running, int(SPARE * enlarging)) + pictures}
        weights = sum(parameters_of(each) * width for found, width, _ in phases for each in found)
        weights += self._beside.changed(self._model, self._dtype) + upscaler
        recorded = 0 if plan.saves else step * (RECORDED - 1)  # which stays while the picture is decoded
        return {"weights": weights, "running": int(SPARE * (recorded + max(step, decoding, enlarging))) + pictures}

    def _phases(self, step: int, decoding: int) -> Iterator[Together]:
        beside, width = self._beside, self._dtype.itemsize
        steering: list[nn.Module] = []
        for network in beside.networks:
            if isinstance(network, Prompter):
                yield [network.encoder], width, 0
            steering.append(network.adapter if isinstance(network, Prompter) else network)
        for model in self._models:
            wide = autoencoder_dtype(model.family, model.autoencoder, self._dtype) or self._dtype
            yield list(model.text.encoders), width, 0
            yield [model.unet, *(steering if model is self._model else [])], width, step
            yield [model.autoencoder], wide.itemsize, decoding


def weights_of(networks: list[nn.Module], width: int, *, by_layers: bool) -> int:
    """Return the bytes of the weights of networks that are on a device at once, of those that come there.

    Tables of embeddings are looked up where they rest.
    """
    modules = (module for network in networks for module in network.modules() if not isinstance(module, nn.Embedding))
    sizes = [each.numel() * width for module in modules for each in module.parameters(recurse=False)]
    return min(sum(sizes), 2 * max(sizes) + AHEAD) if by_layers else sum(sizes)


def device_steps(usual: "Plan", shape: Shape, *, moved: bool) -> Iterator["Plan"]:
    """Give the ways to run on a GPU, from what is usual to what takes least there.

    `moved`: the model's weights rest elsewhere already. The precision is never changed: it is that of the files.
    """
    tiles = TILE * TILE if shape.pixels > TILE * TILE and not shape.seamless else None
    if not moved:
        yield usual
        if shape.guided:
            yield replace(usual, apart=True)
        if tiles is not None:
            yield replace(usual, apart=shape.guided, tiled_above=tiles)
    less = replace(usual, apart=shape.guided, tiled_above=tiles, moves=True)
    yield less
    yield replace(less, streams=True)
