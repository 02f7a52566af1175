"""What a request holds in memory: weights, and what its networks make of a shape while they run."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sfumato import operations as op
from sfumato.controls.reading import told_task
from sfumato.controls.steering import Prompting, Steering, steered
from sfumato.instructed import instructed
from sfumato.memory.beside import NOTHING, Beside
from sfumato.memory.ledger import Footprint, bare, held_by
from sfumato.memory.shape import Shape
from sfumato.model import Model, autoencoder_dtype
from sfumato.nn.resting import Resting
from sfumato.nn.upscaler import upscale_tiled
from sfumato.text.encode import Conditioning
from sfumato.weights.streamed import units

if TYPE_CHECKING:
    from sfumato.memory.plan import Plan

# What is held beside the tensors that are counted, fitted to measured peaks: see docs/memory.md.
CONSTANT = 120 << 20  # bytes: kernels, threads' stacks, tables of the tokenizer
NARROW = 60 << 20  # bytes more where numbers are not float32: wider copies, on processors that need them
WIDER = 1.3  # times what an autoencoder holds in such numbers: convolutions make float32 of them
UNITS = 2.25  # times the largest layer, where weights stay on the disk: its pages, its copies in other orders, holes
EDGES = 24 << 20  # bytes of pages at the edges of such layers, which stay
TILE = 512  # pixels of an autoencoder's tile
UPSCALED = 288  # pixels of an upscaler's tile with what it sees around it
WORDS = 77  # tokens of a chunk of a prompt
LEVEL = 1.0  # a noise level; any does


class Held:
    """What a model and what is beside it hold in one precision: weights, and what each network makes meanwhile.

    `converting` are the bytes that the making of a file of weights that stay on the disk holds.
    """

    def __init__(
        self, model: Model, shape: Shape, dtype: torch.dtype, beside: Beside = NOTHING, converting: int = 0
    ) -> None:
        self._converting = converting
        self._shape, self._dtype, self._beside = shape, dtype, beside
        self._model = model
        self._models = [model, *([] if beside.refiner is None else [beside.refiner])]
        self._counted: dict[tuple[Any, ...], Footprint] = {}

    def bytes(self, plan: "Plan") -> int:
        """Return the peak of a plan beyond what the process has before."""
        parts = self.parts(plan)
        narrow = 0 if self._dtype is torch.float32 else NARROW
        return int(parts["weights"] + parts["running"] + CONSTANT + narrow)

    def parts(self, plan: "Plan") -> dict[str, int]:
        """Return the bytes of the weights that stay, and of what is held beside them in the phase that takes most.

        A phase holds what its networks make, and of weights that stay on the disk those that answer.
        """
        pictures = Footprint.of([self._shape.pixels * 3 * 4 * 4])  # float32, while they become bytes
        step, others = self._step(plan.apart), self._autoencoder(plan.tiled_above).after(self._upscaler())
        phases = [step.beside(pictures).process, others.beside(pictures).process]
        if plan.streams:
            answering, left = self._answering()
            phases = [self._converting, answering + phases[0], left + phases[1]]
        return {"weights": self._weights(plan.streams), "running": max(phases)}

    def _answering(self) -> tuple[int, int]:
        """The bytes of weights from the disk in memory while the UNet answers, and of what is left of them later."""
        answering = [network for each in self._models for network in networks(each)]
        answering += [each for each in self._beside.networks if not any(each is other for other in self._beside.made)]
        every = (unit for network in answering for _, unit in units(network))
        layers = (unit for unit in every if not isinstance(unit, nn.Embedding))  # of tables only rows are looked at
        largest = max(map(parameters_of, layers)) * self._dtype.itemsize
        return int(UNITS * largest) + EDGES, largest + EDGES

    def _weights(self, streams: bool) -> int:
        size = sum(map(parameters_of, self._beside.made if streams else self._beside.networks)) * self._dtype.itemsize
        size += 0 if self._beside.upscaler is None else parameters_of(self._beside.upscaler) * 4  # float32
        size += self._beside.changed(self._model, self._dtype, acting_beside=streams)
        if streams:
            return size
        own = [parameters_of(network) for each in self._models for network in networks(each)]
        largest = max(each.numel() for network in networks(self._model) for each in network.parameters())
        return size + (sum(own) + 2 * largest) * self._dtype.itemsize

    def _step(self, apart: bool) -> Footprint:
        """The most of a step of the model, of a step of the refiner, and of looking at the controls' pictures."""
        key = ("step", apart, self._dtype)
        if key not in self._counted:
            cells = cells_seen(self._model, self._shape)
            found = [count_step(self._model, self._shape, cells, self._dtype, self._beside, apart=apart)]
            if self._beside.refiner is not None:
                found.append(count_step(self._beside.refiner, self._shape, cells, self._dtype, NOTHING, apart=apart))
            self._counted[key] = reduce(Footprint.after, found)
        return self._counted[key]

    def _autoencoder(self, tiled_above: int | None) -> Footprint:
        key = ("autoencoder", tiled_above)
        if key not in self._counted:
            model = replace(self._model, tiled_above=tiled_above)
            dtype = autoencoder_dtype(model.family, model.autoencoder, self._dtype) or self._dtype
            found = count_autoencoder(model, self._shape, dtype)
            wider = 1 if dtype is torch.float32 else WIDER
            self._counted[key] = replace(found, process=int(wider * found.process))
        return self._counted[key]

    def _upscaler(self) -> Footprint:
        """What an upscaler's tile takes beside the whole picture that it makes."""
        if self._beside.upscaler is None:
            return Footprint()
        key = ("upscaler",)
        if key not in self._counted:
            network = self._beside.upscaler
            width, height = self._shape.enlarges or (UPSCALED, UPSCALED)
            tile = torch.empty(1, 3, min(height, UPSCALED), min(width, UPSCALED), device="meta")
            made = held_by([network], lambda: upscale_tiled(network, tile, tile=UPSCALED))
            self._counted[key] = made.beside(Footprint.of([2 * self._shape.pixels * 3 * 4]))
        return self._counted[key]


def networks(model: Model) -> tuple[nn.Module, ...]:
    """Return all networks of a model."""
    return (model.unet, model.autoencoder, *model.text.encoders)


def parameters_of(network: nn.Module) -> int:
    """Return how many numbers a network's weights have."""
    return sum(each.numel() for each in network.parameters())


def bytes_of(kept: Iterable[nn.Module]) -> int:
    """Return the bytes of the weights of networks that are in memory; what several share counts once.

    Without those that rest elsewhere.
    """
    weights = (each for network in kept for each in network.parameters() if not isinstance(each, Resting))
    storages = (each.untyped_storage() for each in weights)
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def cells_seen(model: Model, shape: Shape) -> tuple[int, int]:
    """Return the rows and columns of latent cells that the UNet sees at once."""
    seen = shape.seen or max(shape.height, shape.width)
    return -(-min(shape.height, seen) // model.stride), -(-min(shape.width, seen) // model.stride)


def count_step(
    model: Model, shape: Shape, cells: tuple[int, int], dtype: torch.dtype, beside: Beside, *, apart: bool
) -> Footprint:
    """Return what tensors hold in a step of sampling, and in what control networks see first."""
    bared = replace(model, unet=bare(model.unet, dtype), apart=apart)
    copies: dict[int, Any] = {id(each): bare(each, dtype) for each in beside.networks}
    steering: list[Steering | Prompting] = []
    size = (cells[0] * model.stride, cells[1] * model.stride)
    for control, network in beside.controls:
        always = replace(control, start=0.0, end=1.0, weight=1.0)
        told_network = told_task(control, copies[id(network)])
        steering.append(Steering(always, told_network, torch.empty(1, 3, *size, device="meta")))
    for prompt, prompter in beside.prompts:
        pixels = torch.empty(len(prompt.images), 3, *(prompter.encoder.config.image_size,) * 2, device="meta")
        always_told = replace(prompt, start=0.0, end=1.0, weight=1.0)
        steering.append(Prompting(always_told, copies[id(prompter)], pixels))
    # several prompts are asked in one call with the negative one, also where guidance is in two
    joined = shape.prompts > 1
    told = words_for(bared, shape.batch * (shape.prompts + joined), cells, dtype)
    x = torch.empty(len(told), model.latent_channels, *cells, device="meta")

    def run() -> None:
        positive, negative = steered(told, told, steering, [LEVEL, 0.0])
        guidance = op.Guidance(scale=2.0 if shape.guided and not joined else 1.0)
        if model.family.instructed:
            denoise = instructed(bared, (positive, negative), x[:1], guidance, 2.0, lambda _: 1.0)
        else:
            denoise = op.guided(bared, positive, negative, guidance, lambda _: 1.0)
        denoise(x, LEVEL)

    return held_by([bared.unet, *copies.values()], run)


def words_for(model: Model, count: int, cells: tuple[int, int], dtype: torch.dtype) -> Conditioning:
    """Return what a batch is told, without numbers: the words, and what else the UNet sees beside the latent."""
    config = model.unet.config
    context = torch.empty(count, WORDS, config.cross_attention_dim, dtype=dtype, device="meta")
    pooled: Tensor | None = None
    size: Tensor | None = None
    if config.addition_embed_type is not None:
        ids = 5 if config.addition_time_embed_dim and model.text.rules.sizes == 5 else 6
        width = config.addition_width - ids * (config.addition_time_embed_dim or 0)
        pooled = torch.empty(count, width, dtype=dtype, device="meta")
        size = torch.empty(count, ids, device="meta")
    channels = config.in_channels - model.latent_channels
    concat = torch.empty(count, channels, *cells, dtype=dtype, device="meta") if channels else None
    return Conditioning(context, pooled, size, None if model.family.instructed else concat)


def count_autoencoder(model: Model, shape: Shape, dtype: torch.dtype) -> Footprint:
    """Return what the autoencoder's tensors hold for one picture, in the way that it goes."""
    whole = replace(model, tiled_above=shape.pixels) if shape.seamless else model
    way = op.way_of(whole, shape.pixels)
    sides = (shape.height, shape.width)
    around = 0
    if way == "tiled":  # one of many tiles, beside the whole picture: its sum, its weights, the answer
        sides = (min(shape.height, TILE), min(shape.width, TILE))
        around = shape.pixels * (3 + 1 + 3 + 3) * 4
    cells = (-(-sides[0] // model.stride), -(-sides[1] // model.stride))
    autoencoder = bare(model.autoencoder, dtype)
    way = "whole" if way == "tiled" else way
    latent = torch.empty(1, model.latent_channels, *cells, dtype=dtype, device="meta")
    found = held_by([autoencoder], lambda: op.DECODINGS[way](autoencoder, latent))
    if shape.encodes:
        pixels = torch.empty(1, 3, *(cell * model.stride for cell in cells), dtype=dtype, device="meta")
        found = found.after(held_by([autoencoder], lambda: op.ENCODINGS[way](autoencoder, pixels)))
    return found.beside(Footprint.of([around]))
