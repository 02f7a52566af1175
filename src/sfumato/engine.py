"""Runs jobs: finds and keeps models, and says on which device and in which precision they run."""

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sfumato.admission import admit
from sfumato.controls.reading import control_names
from sfumato.devices import choose_device, choose_dtype
from sfumato.diffusion.presets import PRESETS, with_overrides
from sfumato.errors import ModelNotFoundError
from sfumato.events import Event, Halt, Loading
from sfumato.generation import stream
from sfumato.guides import sampled, traits_of
from sfumato.images import NO_PICTURES, Pictures, PictureSource
from sfumato.job import defaults_of
from sfumato.memory import (
    TILE,
    Plan,
    available,
    bytes_of,
    checked_budget,
    files_beside,
    make_plan,
    networks,
    open_beside,
    picture_size,
    readable_size,
    resident,
    shape_of,
    size_of,
    surely_fits,
)
from sfumato.model import Model
from sfumato.named import check_there, checks
from sfumato.request import Embedding, Lora, Request, draw_seed
from sfumato.request.said import Said
from sfumato.request.traits import Sampled
from sfumato.text.words import AS_WRITTEN, alike_loras, named_loras, words
from sfumato.weights.controls import control_file, is_made_of_unet, with_controls
from sfumato.weights.embeddings import locate_embedding, with_embeddings
from sfumato.weights.embeddings_named import embeddings_named
from sfumato.weights.image_prompts import prompter_files, with_image_prompts
from sfumato.weights.load import embedded, hollow, open_model, read, with_autoencoder
from sfumato.weights.lora import locate_lora, with_loras
from sfumato.weights.opened import Opened
from sfumato.weights.streamed import can_stream, read_streamed
from sfumato.wording import filled_in

log = logging.getLogger(__name__)


def state_of(path: Path) -> "FileState":
    """What shows that a file is still the same: its path, size and time of change."""
    state = path.stat()
    return path, state.st_size, state.st_mtime_ns


def embedded_name() -> str | None:
    """The name of the model in the package, by which its pictures call it; None if this build has none."""
    try:
        return embedded().name
    except ModelNotFoundError:
        return None


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


class Engine:
    """Runs requests on one device, and keeps the models that it used last.

    `keep` models stay in memory; the one that was not used for longest is dropped before another is loaded.
    Threads are PyTorch's own default. Not for several threads at once. On a CPU, `memory` is what may be taken: "auto"
    (what is free), "low" (as little as can be) or a size such as "4GB"; what does not fit is made to fit, or refused
    before it is loaded.
    """

    def __init__(
        self, device: str | None = None, dtype: str | None = None, *, keep: int = 1, memory: str = "auto"
    ) -> None:
        self.memory = checked_budget(memory)
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        if self.device.type == "cuda" and self.dtype is torch.float32:
            # else convolutions have TF32's ten bits, and pictures differ from a CPU's by more than a level
            torch.backends.cudnn.allow_tf32 = False
        self._keep = keep
        self._models: OrderedDict[ModelKey, Model] = OrderedDict()
        self._opened: dict[ModelKey, Opened] = {}
        self._streamed: set[ModelKey] = set()
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
            self._changed = (base, known, with_embeddings(merged, embeddings))
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
        steered = with_image_prompts(with_controls(model, controls, known), request.image_prompts, known)
        self._controls = {
            # what is made of the UNet's own weights goes with the LoRAs that are in them
            name: KeptControl(
                model if name in controls and is_made_of_unet(name) else base, state, steered.controls[name]
            )
            for name, state in states.items()
        }
        return steered

    def _base(self, name: str | None, vae: str | None, prediction: str | None = None, *, beside: int = 0) -> Model:
        key = (name, vae, prediction)
        if key not in self._models:
            while len(self._models) >= max(self._keep, 1 + beside):  # the oldest goes first
                self._models.popitem(last=False)
                self._changed = None
                self._controls = {}
            self._streamed &= set(self._models)
            opened = self._opened.pop(key, None) or self._open(*key)
            self._models[key] = read(opened, self._called(name, opened), self.device, self.dtype)
        self._models.move_to_end(key)
        return self._models[key]

    def plan(
        self,
        request: Request,
        *,
        image: PictureSource | None = None,
        mask: PictureSource | None = None,
        pictures: Pictures = NO_PICTURES,
        said: Mapping[int, Said] = AS_WRITTEN,
    ) -> Plan | None:
        """How a request is run in the memory that it may take, and what it will take in all; nothing is loaded.

        None on a GPU, and where the system does not tell what is free. `said` are the prompts as they were filled in.
        Raises MemoryLimitError, PictureError for a start picture that cannot be read, and the errors of files that it
        names.
        """
        self._opened = self._headers(request)
        start, masked = picture_size(request, image, pictures), mask is not None or request.mask is not None
        return self._plan(request, start, said, masked=masked, surely=True)

    def _headers(self, request: Request) -> dict[ModelKey, Opened]:
        """What a request's models are, of those that are not in memory; the loading takes it."""
        keys: list[ModelKey] = [(request.model, request.vae, request.prediction)]
        keys += [] if request.refiner is None else [(request.refiner.model, None, None)]
        return {each: self._open(*each) for each in keys if each not in self._models}

    def _admit(
        self, request: Request, start: tuple[int, int] | None, said: Mapping[int, Said], *, masked: bool
    ) -> None:
        """Raise, before a weight is read, what `run` raises for what is not there or what the model does not allow."""
        check_there(request)
        model = self._hollow((request.model, request.vae, request.prediction))
        refiner = None if request.refiner is None else traits_of(self._hollow((request.refiner.model, None, None)))

        def sampled_by(sampler: str | None, spacing: str | None) -> Sampled:
            return sampled(with_overrides(model.sampling, sampler=sampler, spacing=spacing))

        admit(request, defaults_of(model), traits_of(model), sampled_by, start=start, mask=masked, refiner=refiner)
        known = {name: each.network for name, each in self._controls.items() if each.base is model}
        for _, check in checks(request, model, named_loras(request, said), known):
            check()

    def _plan(
        self,
        request: Request,
        start: tuple[int, int] | None,
        said: Mapping[int, Said],
        *,
        masked: bool,
        surely: bool = False,
    ) -> Plan | None:
        """As `plan`; unless it has to be told `surely`, None too where so much is free that nothing is counted."""
        key = (request.model, request.vae, request.prediction)
        other = None if request.refiner is None else (request.refiner.model, None, None)
        free = available()
        if self.device.type != "cpu" or (free is None and self.memory == "auto"):
            return None
        keys = [key] if other is None else [key, other]
        family = self._models[key].family if key in self._models else self._opened[key].family
        shape = shape_of(request, family, start)
        if key in self._models and key in self._streamed:  # as it was loaded, whatever is free by now
            return Plan(self._models[key].dtype, streams=True, apart=shape.guided, tiled_above=TILE * TILE)
        loras = named_loras(request, said)
        if not surely and self.memory == "auto" and surely_fits(self._files(request, key, loras), shape, free or 0):
            return None
        model, *refiner = (self._hollow(each) for each in keys)
        repaints = masked or request.outpaint is not None
        beside = open_beside(request, model, list(loras), refiner[0] if refiner else None, masked=repaints)
        going = self._going(key, other)
        return make_plan(
            model,
            shape,
            self.dtype or torch.float32,
            self.memory,
            here=max(resident() - going, 0),
            available=(free or 0) + going,
            beside=beside,
        )

    def _going(self, key: ModelKey, other: ModelKey | None) -> int:
        """The bytes of the weights in memory that are the request's own, or are let go of before it is run."""
        others = [each for each in self._models if each not in (key, other)]  # the oldest first
        if key not in self._models:
            others = others[len(others) - min(self._keep - 1, len(others)) :]
        every = [network for model in self._models.values() for network in networks(model)]
        every += [each.network for each in self._controls.values()]
        every += [] if self._changed is None else networks(self._changed[2])
        return bytes_of(every) - bytes_of(network for each in others for network in networks(self._models[each]))

    def _hollow(self, key: ModelKey) -> Model:
        return self._models.get(key) or hollow(self._opened[key], key[0] or "the embedded model")

    def _files(self, request: Request, key: ModelKey, loras: Collection[Lora]) -> int:
        """The bytes of the files of what is not in memory yet; where LoRAs change a model, its own a second time."""
        size = sum(map(size_of, self._opened.values())) + files_beside(request, loras)
        if not loras:
            return size
        return size + (bytes_of(networks(self._models[key])) if key in self._models else size_of(self._opened[key]))

    def _prepare(self, plan: Plan, request: Request) -> None:
        """Loads what a plan leaves on the disk, and says what it does that nobody asked for."""
        key = (request.model, request.vae, request.prediction)
        if plan.saves and key not in self._streamed:
            level = logging.WARNING if self.memory == "auto" else logging.INFO
            log.log(level, "to fit into the memory (%s in all): %s", readable_size(plan.peak), plan.saves)
        if not plan.streams or not can_stream(self.device):
            return
        if key not in self._streamed:
            self._drop(key)
            self._stream(key, plan.dtype)
        if request.refiner is not None and (other := (request.refiner.model, None, None)) not in self._streamed:
            self._stream(other, plan.dtype)

    def _stream(self, key: ModelKey, dtype: torch.dtype) -> None:
        opened = self._opened.pop(key, None) or self._open(*key)
        self._models[key] = read_streamed(opened, self._called(key[0], opened), dtype)
        self._streamed.add(key)

    def _open(self, name: str | None, vae: str | None, prediction: str | None) -> Opened:
        place = None if name is None or name == embedded_name() else name
        return with_autoencoder(open_model(place, prediction=prediction), vae)

    def _called(self, name: str | None, opened: Opened) -> str:
        return opened.path.name if name is None or name == embedded_name() else name

    def _drop(self, key: ModelKey) -> None:
        """Lets go of a model, and of others until there is room for one more."""
        self._models.pop(key, None)
        while len(self._models) >= self._keep:
            self._models.popitem(last=False)
        self._changed, self._controls = None, {}
        self._streamed &= set(self._models)

    def run(
        self,
        request: Request,
        *,
        image: PictureSource | None = None,
        mask: PictureSource | None = None,
        pictures: Pictures = NO_PICTURES,
        metadata: bool = True,
        preview_every: int = 0,
        halt: Halt | None = None,
    ) -> Iterator[Event]:
        """The events of a request: Loading if its model is not in memory, then those of `stream`.

        To cancel, leave the loop; `halt` ends early with what there is. Raises what `load` and `stream` raise.
        """
        with_overrides(PRESETS["ddim"], sampler=request.sampler, spacing=request.spacing)  # refuses unknown names early
        if not self.is_loaded(request.model, request.vae, request.prediction):
            yield Loading(request.model or "the embedded model")
        if request.refiner is not None and not self.is_loaded(request.refiner.model):
            yield Loading(request.refiner.model)
        if request.seed is None:
            request = replace(request, seed=draw_seed())  # for all that follows, in several runs too
        said = filled_in(request)
        self._opened = self._headers(request)
        start, masked = picture_size(request, image, pictures), mask is not None or request.mask is not None
        self._admit(request, start, said, masked=masked)
        plan = self._plan(request, start, said, masked=masked)
        if plan is not None:
            self._prepare(plan, request)
        for run, _ in alike_loras(request, said):
            model = self.model_for(request, run[0], said)
            if plan is not None:
                model = replace(model, apart=plan.apart, tiled_above=plan.tiled_above)
                if plan.streams and request.masking is None:  # a companion's weights would be in memory
                    model = replace(model, companion=None)
            stopped = yield from stream(
                model,
                request,
                image=image,
                mask=mask,
                pictures=pictures,
                metadata=metadata,
                preview_every=preview_every,
                only=run,
                said=said,
                halt=halt,
            )
            if stopped:
                return

    def model_for(self, request: Request, index: int = 0, said: Mapping[int, Said] = AS_WRITTEN) -> Model:
        """The model of a request with all that it and the prompts of picture `index` name. Errors are those of `model`.

        `said` are the prompts as they were filled in. A refiner is kept beside its model.
        """
        loras = words(request, index, said).loras
        every, allowed = [*request.loras, *loras], request.allow_unmatched
        for lora in every:
            locate_lora(lora.name)  # what is not there is told early
        base = self._base(request.model, request.vae, request.prediction)
        model = self.model(
            request.model,
            request.vae,
            every,
            [*request.embeddings, *self._named_embeddings(request, base, said)],
            allow_unmatched=allowed,
            prediction=request.prediction,
        )
        steered = self._with_controls(model, base, request)
        if request.refiner is None:
            return steered
        return replace(steered, refiner=self._base(request.refiner.model, None, beside=1))

    def _named_embeddings(self, request: Request, base: Model, said: Mapping[int, Said]) -> tuple[Embedding, ...]:
        """The embeddings that the prompts name, in any dialect but plain."""
        if request.dialect == "plain":
            return ()
        texts = [*request.prompts, request.negative_prompt, *(region.prompt for region in request.regions)]
        texts += [text for each in said.values() for text in (each.prompt, each.negative_prompt, *each.regions)]
        return embeddings_named(texts, base, request.dialect, request.embeddings)

    def forget(self) -> None:
        """Drops all models from memory, and gives a GPU's back to other programs."""
        self._models.clear()
        self._streamed.clear()
        self._changed = None
        self._controls = {}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
