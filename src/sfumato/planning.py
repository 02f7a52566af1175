"""What an engine does so that a request fits into the memory that it may take."""

import logging
from collections.abc import Collection, Mapping

from sfumato.images import NO_PICTURES, Pictures, PictureSource
from sfumato.kept import Kept, ModelKey, model_key, refiner_keys
from sfumato.memory.asked import picture_size, size_of
from sfumato.memory.beside import files_beside, open_beside
from sfumato.memory.held import TILE, bytes_of, networks
from sfumato.memory.plan import Plan, make_plan
from sfumato.memory.shape import shape_of, surely_fits
from sfumato.memory.sizes import checked_budget, readable_size
from sfumato.memory.space import HOST, space_of
from sfumato.request import Lora, Request
from sfumato.request.said import Said
from sfumato.text.words import AS_WRITTEN, named_loras
from sfumato.weights.moved import file_dtype
from sfumato.weights.streamed import can_stream, held_while_converting

log = logging.getLogger(__name__)

HOST_SPARE = 1.5  # times a model's files: with less free memory its weights stay on the disk when they leave a GPU


class Planning(Kept):
    """The part of an engine that is about memory."""

    def __init__(
        self, device: str | None = None, dtype: str | None = None, *, keep: int = 1, memory: str = "auto"
    ) -> None:
        self.memory = checked_budget(memory)
        super().__init__(device, dtype, keep=keep)
        self.space, self.host = space_of(self.device), HOST

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

        None where the system does not tell what is free, and on Metal unless a size or "low" is asked for. `said` are
        the prompts as they were filled in. Raises MemoryLimitError, PictureError for a start picture that cannot be
        read, and the errors of files that it names.
        """
        self._opened = self._headers(request)
        start, masked = picture_size(request, image, pictures), mask is not None or request.mask is not None
        return self._plan(request, start, said, masked=masked, surely=True)

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
        key = model_key(request)
        other = next(iter(refiner_keys(request)), None)
        free, on_device = self.space.free(), self.space.on_device
        if self.memory == "auto" and (free is None or self.device.type == "mps"):
            return None
        keys = [key] if other is None else [key, other]
        family = self._models[key].family if key in self._models else self._opened[key].family
        shape = shape_of(request, family, start, said)
        if key in self._models and key in self._streamed:  # as it was loaded, whatever is free by now
            return Plan(self._models[key].dtype, streams=True, apart=shape.guided, tiled_above=TILE * TILE)
        loras = named_loras(request, said)
        usual = not surely and self.memory == "auto" and key not in self._moved
        dtype = self.dtype or (self._models[key].dtype if key in self._models else file_dtype(self._opened[key].unet))
        half = on_device and dtype.itemsize == 2
        if usual and surely_fits(self._files(request, key, loras), shape, free or 0, half=half):
            return None
        model, *refiner = (self._hollow(each) for each in keys)
        repaints = masked or request.outpaint is not None
        beside = open_beside(request, model, list(loras), refiner[0] if refiner else None, masked=repaints)
        going = self._going(key, other) + (self._room.nbytes if on_device else 0)
        unread = [self._opened[each] for each in keys if each not in self._models]
        return make_plan(
            model,
            shape,
            dtype,
            self.memory,
            here=max(self.space.taken() - going, 0),
            available=(free or 0) + going,
            beside=beside,
            converting=lambda dtype: max((held_while_converting(each, dtype) for each in unread), default=0),
            on_device=on_device,
            moved=key in self._moved,
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

    def _files(self, request: Request, key: ModelKey, loras: Collection[Lora]) -> int:
        """The bytes of the files of what is not in memory yet; where LoRAs change a model, its own a second time."""
        size = sum(map(size_of, self._opened.values())) + files_beside(request, loras)
        if not loras:
            return size
        return size + (bytes_of(networks(self._models[key])) if key in self._models else size_of(self._opened[key]))

    def _prepare(self, plan: Plan, request: Request) -> None:
        """Loads what a plan leaves on the disk, and says what it does that nobody asked for."""
        key = model_key(request)
        if plan.saves and key not in self._streamed and key not in self._moved:
            level = logging.WARNING if self.memory == "auto" else logging.INFO
            log.log(level, "to fit into the memory (%s in all): %s", readable_size(plan.peak), plan.saves)
        if not plan.moves:
            self._room.clear()  # what another model left there counts as room
        if plan.moves:
            self._room.by_layers = plan.streams
            self._move_in(request)
        elif plan.streams and can_stream(self.device):
            if key not in self._streamed:
                self._drop(key)
                self._stream(key, plan.dtype)
            for other in refiner_keys(request):
                if other not in self._streamed:
                    self._stream(other, plan.dtype)

    def _move_in(self, request: Request) -> None:
        """Reads a request's models so that their weights move, where they do not yet."""
        key = model_key(request)
        others = refiner_keys(request)
        if key not in self._moved:
            self._drop(key)
        for old in [each for each in self._models if each not in (key, *others)]:  # the oldest first
            if len({key, *others} | set(self._models)) > max(self._keep, 1 + len(others)):
                del self._models[old]
        self._known_kinds()
        for each in (key, *others):
            if each in self._moved:
                continue
            self._room.clear()
            self._models.pop(each, None)
            if each not in self._opened:
                self._opened[each] = self._open(*each)
            host = self.host.free()
            self._move(each, on_disk=host is not None and host < HOST_SPARE * size_of(self._opened[each]))
