"""Runs jobs: the models that it keeps draw what was found to work, as it was planned."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sfumato.admission import admit
from sfumato.diffusion.presets import PRESETS, with_overrides
from sfumato.events import Event, Halt, Loading
from sfumato.generation import stream
from sfumato.guides import sampled, traits_of
from sfumato.images import NO_PICTURES, Pictures, PictureSource
from sfumato.job import defaults_of
from sfumato.kept import model_key
from sfumato.memory.asked import picture_size
from sfumato.model import Model
from sfumato.named import check_there, checks
from sfumato.planning import Planning
from sfumato.request import Embedding, Request, draw_seed
from sfumato.request.said import Said
from sfumato.request.traits import Sampled
from sfumato.text.words import AS_WRITTEN, alike_loras, named_loras, words
from sfumato.weights.embeddings_named import embeddings_named
from sfumato.weights.lora import locate_lora
from sfumato.wording import filled_in


class Engine(Planning):
    """Runs requests on one device, and keeps the models that it used last.

    `keep` models stay in memory; the one that was not used for longest is dropped before another is loaded.
    Threads are PyTorch's own default. Not for several threads at once. On a CPU, `memory` is what may be taken: "auto"
    (what is free), "low" (as little as can be) or a size such as "4GB"; what does not fit is made to fit, or refused
    before it is loaded.
    """

    def _admit(
        self, request: Request, start: tuple[int, int] | None, said: Mapping[int, Said], *, masked: bool
    ) -> None:
        """Raise, before a weight is read, what `run` raises for what is not there or what the model does not allow."""
        check_there(request)
        model = self._hollow(model_key(request))
        refiner = None if request.refiner is None else traits_of(self._hollow((request.refiner.model, None, None)))

        def sampled_by(sampler: str | None, spacing: str | None) -> Sampled:
            return sampled(with_overrides(model.sampling, sampler=sampler, spacing=spacing))

        admit(request, defaults_of(model), traits_of(model), sampled_by, start=start, mask=masked, refiner=refiner)
        known = {name: each.network for name, each in self._controls.items() if each.base is model}
        for _, check in checks(request, model, named_loras(request, said), known):
            check()

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
                # a companion's weights would be in memory
                if plan.streams and not plan.moves and request.masking is None:
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
        texts = [text for each in said.values() for text in (each.prompt, each.negative_prompt, *each.regions)]
        texts = texts or [*request.prompts, request.negative_prompt, *(region.prompt for region in request.regions)]
        if request.hires is not None:
            texts += filter(None, (request.hires.prompt, request.hires.negative_prompt))
        return embeddings_named(texts, base, request.dialect, request.embeddings)
