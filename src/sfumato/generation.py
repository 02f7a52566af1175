"""From a request to pictures: one straight line over the operations, told as events."""

import platform
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from PIL import Image
from torch import Tensor

from sfumato import __version__
from sfumato import operations as op
from sfumato.events import Event, Finished, Halt, Preview, Progress
from sfumato.guides import size_ids
from sfumato.hires import enlarged
from sfumato.images import NO_PICTURES, Pictures, PictureSource, to_levels, to_pictures
from sfumato.job import Job, prepare
from sfumato.masks import keep_outside
from sfumato.metadata import Provenance, make_record, stamp
from sfumato.model import Model
from sfumato.preview import SD_FACTORS, SDXL_FACTORS, Factors, preview
from sfumato.request import Request
from sfumato.request.said import Said
from sfumato.taking import taken
from sfumato.text.telling import Wanted
from sfumato.text.told import Told, alike, together
from sfumato.text.words import Words, words
from sfumato.trajectory import Batch, Run, begin
from sfumato.upscaling import upscaler_hash


def generate(
    model: Model,
    request: Request,
    *,
    image: PictureSource | None = None,
    mask: PictureSource | None = None,
    pictures: Pictures = NO_PICTURES,
    metadata: bool = True,
) -> list[Image.Image]:
    """The pictures of a request, in order; `.info` holds what `sfumato.save` writes with them.

    `image` and `mask` may be handed over instead of being read from the request's paths; so may any picture of it, in
    `pictures`, by the name that it has in the request, such as `sha256:...`. Without `metadata` the model is not
    hashed. Raises RequestError for what the model cannot do, PictureError for pictures that cannot be read.
    """
    events = stream(model, request, image=image, mask=mask, pictures=pictures, metadata=metadata)
    return [event.picture for event in events if isinstance(event, Finished)]


def stream(
    model: Model,
    request: Request,
    *,
    image: PictureSource | None = None,
    mask: PictureSource | None = None,
    pictures: Pictures = NO_PICTURES,
    metadata: bool = True,
    preview_every: int = 0,
    halt: Halt | None = None,
    only: range | None = None,
    said: Mapping[int, Said] | None = None,
) -> Generator[Event, None, bool]:
    """The events of a request as it runs: Progress after each step, Preview after every so many, Finished pictures.

    To cancel, leave the loop; to end early with what there is, say so when `halt` asks. `only` are the numbers of the
    pictures that are made, by default all; `said` their prompts as they were filled in. Returns whether it was ended.
    Arguments and errors are those of `generate`.
    """
    job = prepare(model, request, image=image, mask=mask, pictures=pictures, only=only, said=said)
    for batch in batches(job):
        for event in draw(job, batch, metadata=metadata, preview_every=preview_every):
            yield event
            wish = halt() if halt is not None and isinstance(event, Progress) else None
            if wish is not None:
                assert isinstance(event, Progress)
                yield from as_it_is(job, event, metadata=metadata)
                break
        else:
            continue
        if wish == "stop":
            return True
    return False


def as_it_is(job: Job, progress: Progress, *, metadata: bool = True) -> Iterator[Finished]:
    """The pictures of a batch as they are after a step: what the network takes them for, decoded."""
    assert progress.denoised is not None
    last = job if job.second is None or progress.step < len(job.levels) else job.second
    for index, latent in zip(progress.pictures, torch.split(progress.denoised, 1), strict=True):
        made = finish(last, latent)
        yield _finished(job, index, made, metadata=metadata, beside=progress.pictures, halted_at=progress.step)


def batches(job: Job, pictures: Sequence[int] | None = None) -> Iterator[Batch]:
    """The request's pictures in their order, or some of them, so many together as the request says.

    Only pictures whose prompts have the same number of chunks, and the same parts and places, go together: padding one
    would change it.
    """
    request = job.request
    assert request.batch is not None
    encoded: dict[Words, tuple[Told, ...]] = {}
    waiting: list[tuple[int, tuple[Told, ...]]] = []
    for index in job.pictures if pictures is None else pictures:
        said = words(request, index, job.said)
        if said not in encoded:
            encoded = {said: told(job, said)}
        if waiting and (len(waiting) == request.batch or alike(waiting[0][1][0]) != alike(encoded[said][0])):
            yield _batch(waiting)
            waiting = []
        waiting.append((index, encoded[said]))
    yield _batch(waiting)


def told(job: Job, said: Words) -> tuple[Told, ...]:
    """What is told of words and of their negatives: to the model, and after that to the refiner where there is one."""
    request = job.request
    models = [job.model, *([job.model.refiner] if request.refiner is not None and job.model.refiner else [])]
    pairs = [
        op.encode_text(
            model,
            wanted(job, said),
            said.negative_prompt,
            job.canvas,
            sigmas=() if job.nothing_to_do else job.levels,
            dialect=request.dialect,
            clip_skip=request.clip_skip or 0,
            ids=size_ids(request),
            before=job.before,
        )
        for model in models
    ]
    return tuple(each for pair in pairs for each in pair)


def wanted(job: Job, said: Words) -> list[Wanted]:
    """The prompts of a picture, each with the place where it counts; those that count nowhere are left out."""
    texts = [said.prompt, *said.regions]
    if not job.places:
        return [Wanted(said.prompt)]
    counting = [(text, place) for text, place in zip(texts, job.places, strict=True) if bool((place > 0).any())]
    if len(counting) == 1:  # it has the whole picture
        return [Wanted(counting[0][0])]
    return [Wanted(text, place) for text, place in counting]


def _batch(waiting: list[tuple[int, tuple[Told, ...]]]) -> Batch:
    indices, parts = zip(*waiting, strict=True)
    positive, negative, *refining = (together(each) for each in zip(*parts, strict=True))
    return Batch(indices, positive, negative, (refining[0], refining[1]) if refining else None)


def draw(job: Job, batch: Batch, *, metadata: bool = True, preview_every: int = 0) -> Iterator[Event]:
    """The events of one batch."""
    if job.nothing_to_do and job.second is None:
        for index in batch.pictures:
            yield _finished(job, index, job.original.copy(), metadata=metadata, beside=batch.pictures)
        return
    steps = len(job.levels) - 1 + (0 if job.second is None else len(job.second.levels) - 1)
    latent = None
    if not job.nothing_to_do:
        run = begin(job, batch)
        latent = yield from follow(job, run, batch.pictures, Count(0, steps, preview_every))
    last = job
    if job.second is not None:
        last, count = job.second, Count(len(job.levels) - 1, steps, preview_every)
        latent = yield from enlarge(job, last, batch, latent, count)
    assert latent is not None
    for index, one in zip(batch.pictures, torch.split(latent, 1), strict=True):
        yield _finished(job, index, finish(last, one), metadata=metadata, beside=batch.pictures)


@dataclass(frozen=True)
class Count:
    """How the steps of a run are told: how many were done before, how many there are, how often there is a preview."""

    before: int
    steps: int
    preview_every: int


def follow(job: Job, run: Run, pictures: tuple[int, ...], count: Count) -> Generator[Event, None, Tensor]:
    """The events of a trajectory's steps; returns its latents [B, C, h, w]."""
    x = run.x
    steps = job.sampling.run(
        run.denoise, x, run.sigmas, run.noise.step, schedule=job.model.schedule, unconditional=run.unconditional
    )
    for step in steps:
        x = step.x
        done = count.before + step.index + 1
        yield Progress(done, count.steps, step.sigma, step.denoised, pictures)
        if count.preview_every and done % count.preview_every == 0 and done < count.steps:
            images = tuple(preview(step.denoised, preview_factors(job.model)))
            yield Preview(done, count.steps, images, pictures)
    return run.leave(x, job.sampling)


def enlarge(
    first: Job, second: Job, batch: Batch, latent: Tensor | None, count: Count
) -> Generator[Event, None, Tensor]:
    """The events of the second pass over a batch's latents; returns those that it makes of them."""
    assert first.request.hires is not None
    place = {index: number for number, index in enumerate(batch.pictures)}
    done = []
    for part in batches(second, batch.pictures):
        chosen = None if latent is None else latent[[place[index] for index in part.pictures]]
        begun = enlarged(first, second, chosen, first.request.hires.upscaler)
        if len(second.levels) == 1:  # a strength of no whole step
            done.append(begun.mean.expand(len(part.pictures), -1, -1, -1))
        else:
            done.append((yield from follow(second, begin(second, part, begun), part.pictures, count)))
    return torch.cat(done)


def finish(job: Job, latent: Tensor) -> Image.Image:
    """The picture of a latent [1, C, h, w]: decoded, cropped, and with the start picture's bytes outside the mask.

    Where both are mixed it is before they are rounded to bytes, once.
    """
    levels = to_levels(job.canvas.crop(op.decode(job.model, latent))).cpu()
    if job.inset is not None:
        levels = job.inset.spread(levels, 255.0)
    if job.mask is not None and job.picture is not None:
        levels = keep_outside(levels, job.original, taken(job, latent))
    return to_pictures(levels)[0]


def preview_factors(model: Model) -> Factors:
    """What turns the model's latents into colours: its own factors where it has some, or those of its kind."""
    return model.family.preview or (SDXL_FACTORS if model.family.text.startswith("sdxl") else SD_FACTORS)


def _finished(
    job: Job,
    index: int,
    picture: Image.Image,
    *,
    metadata: bool,
    beside: tuple[int, ...],
    halted_at: int | None = None,
) -> Finished:
    """The event of a picture that is done; `beside` are those that it was drawn with, itself too."""
    request = job.request
    if metadata:
        model = job.model
        provenance = Provenance(
            model.name,
            model.family.name,
            model.hashes,
            environment(model, request),
            job.inputs,
            asdict(job.sampling),
            tuple({"index": each, **job.said[each].to_dict()} for each in beside if each in job.said),
        )
        stamp(picture, make_record(request, index, picture, provenance, halted_at=halted_at))
    return Finished(index, request.seed_of(index), picture, request, halted_at)


def environment(model: Model, request: Request) -> dict[str, str | int]:
    """What a picture's bytes depend on beside the request and the model's weights."""
    upscaler = None if request.hires is None else upscaler_hash(request.hires.upscaler)
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine()
    return {
        "sfumato": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": f"{model.device.type} ({name})",
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        **({} if upscaler is None else {"upscaler": upscaler}),
    }
