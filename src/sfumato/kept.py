"""The models that an engine keeps in memory, and how they come there and go: on which device, in which precision."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sfumato.controls.reading import control_names
from sfumato.devices import choose_device, choose_dtype
from sfumato.model import Model
from sfumato.nn.resting import Resting, Room, rest
from sfumato.request import Embedding, Lora, Request
from sfumato.weights.controls import Filling, control_file, fill_for, is_made_of_unet, with_controls
from sfumato.weights.embeddings import locate_embedding, with_embeddings
from sfumato.weights.image_prompts import prompter_files, with_image_prompts
from sfumato.weights.load import hollow, open_model, read
from sfumato.weights.locate import embedded_name
from sfumato.weights.lora import locate_lora, with_loras
from sfumato.weights.moved import fill_resting, read_moved
from sfumato.weights.opened import Component, Opened
from sfumato.weights.streamed import read_streamed, stream


def state_of(path: Path) -> "FileState":
    """What shows that a file is still the same: its path, size and time of change."""
    state = path.stat()
    return path, state.st_size, state.st_mtime_ns


FileState = tuple[Path, int, int]
"""A file, its size and its time of change."""

ChangeKey = tuple[bool | tuple[Lora | Embedding, FileState], ...]
"""LoRAs and embeddings, and the states of their files; before them whether unmatched tensors are allowed."""


@dataclass(frozen=True)
class KeptControl:
    """A control network that was read for a model, and the states of its files."""

    base: Model
    states: tuple[FileState, ...]
    network: nn.Module


ModelKey = tuple[str | None, str | None, str | None]
"""Names of a model and of another autoencoder, and what it predicts."""


def model_key(request: Request) -> ModelKey:
    """What a request draws with."""
    return request.model, request.vae, request.prediction


def refiner_keys(request: Request) -> list[ModelKey]:
    """What it draws on with, if it has a refiner."""
    return [] if request.refiner is None else [(request.refiner.model, None, None)]


def together_with(network: nn.Module) -> str:
    """The name of the networks that one whose weights rest is on a device together with."""
    first = next(network.parameters())
    assert isinstance(first, Resting)
    return first.weight.network


def stream_for(component: Component, model: Model) -> None:
    """Leaves the weights of a network beside a model on the disk, as the model's are."""
    stream(component, model.dtype)


class Kept:
    """The part of an engine that is about models: it keeps those that it used last."""

    def __init__(self, device: str | None = None, dtype: str | None = None, *, keep: int = 1) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        if self.device.type == "cuda" and self.dtype is torch.float32:
            # else convolutions have TF32's ten bits, and pictures differ from a CPU's by more than a level
            torch.backends.cudnn.allow_tf32 = False
        self._keep = keep
        self._models: OrderedDict[ModelKey, Model] = OrderedDict()
        self._opened: dict[ModelKey, Opened] = {}
        self._streamed: set[ModelKey] = set()
        self._moved: set[ModelKey] = set()
        self._room = Room(self.device)
        self._changed: tuple[Model, ChangeKey, Model] | None = None
        self._controls: dict[str, KeptControl] = {}

    def is_loaded(self, name: str | None = None, vae: str | None = None, prediction: str | None = None) -> bool:
        """Is this model in memory?"""
        return (name, vae, prediction) in self._models

    def model(
        self,
        name: str | None = None,
        vae: str | None = None,
        loras: Sequence[Lora] = (),
        embeddings: Sequence[Embedding] = (),
        *,
        allow_unmatched: bool = False,
        prediction: str | None = None,
    ) -> Model:
        """The model of a name, loaded now if it has to be; the embedded one without a name. Errors: `load`'s.

        `prediction` says what it predicts where its files do not.

        With LoRAs or embeddings it is a second one, which shares with the first what they do not change; the last such
        is kept, for as long as their files stay as they are. `allow_unmatched` is that of `with_loras`.
        """
        key: ChangeKey = (  # what is not there is told early
            *((lora, state_of(locate_lora(lora.name))) for lora in loras),
            *((each, state_of(locate_embedding(each.name))) for each in embeddings),
        )
        base = self._base(name, vae, prediction)
        if not key:
            return base
        known = (allow_unmatched, *key)
        if self._changed is None or self._changed[0] is not base or self._changed[1] != known:
            self._changed = None  # let go before another is made
            streamed = (name, vae, prediction) in self._streamed
            merged = with_loras(base, loras, allow_unmatched=allow_unmatched, beside=streamed)
            told = with_embeddings(merged, embeddings)
            if (name, vae, prediction) in self._moved:  # a table with new words was made where it is used
                for encoder, before in zip(told.text.encoders, base.text.encoders, strict=True):
                    rest(encoder, self._room, together_with(before))
            self._changed = (base, known, told)
        return self._changed[2]

    def _with_controls(self, model: Model, base: Model, request: Request) -> Model:
        """The model with the networks that controls and image prompts name; those of the last call are kept."""
        controls = control_names(request)
        states: dict[str, tuple[FileState, ...]] = {name: (state_of(control_file(name)),) for name in controls}
        states |= {each.network: tuple(map(state_of, prompter_files(each))) for each in request.image_prompts}
        kept = {
            name: found
            for name, found in self._controls.items()
            if (found.base is base or found.base is model) and found.states == states.get(name)
        }
        self._controls = kept  # the others are let go before new ones are read
        known = {name: found.network for name, found in kept.items()}
        filling = self._filling(model_key(request))
        steered = with_controls(model, controls, known, filling)
        steered = with_image_prompts(steered, request.image_prompts, known, filling)
        if filling is fill_resting:
            for network in steered.controls.values():  # one that is made of the UNet's weights was made on the device
                rest(network, self._room, together_with(base.unet))
        self._controls = {
            # what is made of the UNet's own weights goes with the LoRAs that are in them
            name: KeptControl(
                model if name in controls and is_made_of_unet(name) else base, state, steered.controls[name]
            )
            for name, state in states.items()
        }
        return steered

    def _filling(self, key: ModelKey) -> Filling:
        """What gives a network beside a model its weights: where the model's own are."""
        if key in self._moved:
            return fill_resting
        return stream_for if key in self._streamed else fill_for

    def _base(self, name: str | None, vae: str | None, prediction: str | None = None, *, beside: int = 0) -> Model:
        key = (name, vae, prediction)
        if key not in self._models:
            self._room.clear()  # before what is on its way there is gone
            while len(self._models) >= max(self._keep, 1 + beside):  # the oldest goes first
                self._models.popitem(last=False)
                self._changed = None
                self._controls = {}
            self._known_kinds()
            opened = self._opened.pop(key, None) or self._open(*key)
            self._models[key] = read(opened, self._called(name, opened), self.device, self.dtype)
        self._models.move_to_end(key)
        return self._models[key]

    def _headers(self, request: Request) -> dict[ModelKey, Opened]:
        """What a request's models are, of those that are not in memory; the loading takes it."""
        keys = [model_key(request), *refiner_keys(request)]
        return {each: self._open(*each) for each in keys if each not in self._models}

    def _hollow(self, key: ModelKey) -> Model:
        return self._models.get(key) or hollow(self._opened[key], key[0] or "the embedded model")

    def _stream(self, key: ModelKey, dtype: torch.dtype) -> None:
        opened = self._opened.pop(key, None) or self._open(*key)
        self._models[key] = read_streamed(opened, self._called(key[0], opened), dtype)
        self._streamed.add(key)

    def _move(self, key: ModelKey, *, on_disk: bool) -> None:
        opened = self._opened.pop(key, None) or self._open(*key)
        called = self._called(key[0], opened)
        self._models[key] = read_moved(opened, called, self._room, self.dtype, on_disk=on_disk)
        self._moved.add(key)

    def _open(self, name: str | None, vae: str | None, prediction: str | None) -> Opened:
        place = None if name is None or name == embedded_name() else name
        return open_model(place, prediction=prediction, vae=vae)

    def _called(self, name: str | None, opened: Opened) -> str:
        return opened.path.name if name is None or name == embedded_name() else name

    def _drop(self, key: ModelKey) -> None:
        """Lets go of a model, and of others until there is room for one more."""
        self._room.clear()
        self._models.pop(key, None)
        while len(self._models) >= self._keep:
            self._models.popitem(last=False)
        self._changed, self._controls = None, {}
        self._known_kinds()

    def _known_kinds(self) -> None:
        """Forgets of models that are gone where their weights were."""
        self._streamed &= set(self._models)
        self._moved &= set(self._models)

    def forget(self) -> None:
        """Drops all models from memory, and gives a GPU's back to other programs."""
        self._room.clear()
        self._models.clear()
        self._streamed.clear()
        self._moved.clear()
        self._changed = None
        self._controls = {}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
