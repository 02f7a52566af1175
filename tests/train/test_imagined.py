"""Pairs that no scene shows: what is said of them, that they are as independence makes them, and their share."""

from pathlib import Path
from typing import Any

import pytest
import tiny_start as tiny
import torch
from torch import Tensor, nn

from sfumato.diffusion.denoiser import denoiser
from sfumato.diffusion.samplers.euler import euler
from sfumato.diffusion.spacing import trailing
from sfumato.diffusion.wrappers import guide_doubled
from sfumato.errors import ConfigError
from sfumato.scenes.vocabulary import COLOURS, KINDS, UNSEEN_PAIRS
from sfumato.train.config import read_config
from sfumato.train.imagined import ImaginedConfig, compositions, imagine
from sfumato.train.objective import SCHEDULER, DenoisingLoss, Objective
from sfumato.train.plan import passes
from sfumato.train.unet import UNetTask

NOUNS = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}
WORLD = {"source": "world", "size": 32, "pool": 8, "caption": ""}


def found(text: str) -> tuple[str, str | None]:
    """The kind and the colour that a caption names before its place and background do."""
    words = text.replace(",", "").replace("crescent ", "").split()
    at = next(at for at, word in enumerate(words) if word in NOUNS)
    return NOUNS[words[at]], words[at - 1] if words[at - 1] in COLOURS else None


@pytest.mark.parametrize("others", [1, 3])
def test_what_is_said_of_a_composition(others: int) -> None:
    said = compositions(ImaginedConfig(share=0.5, count=200, others=others, seed=5))
    for each in said:
        pair = found(each.whole)
        assert pair in UNSEEN_PAIRS
        assert found(each.kind) == (pair[0], None)
        assert len({found(text)[0] for text in each.coloured}) == others
        for coloured, plain in zip(each.coloured, each.others, strict=True):
            kind, colour = found(coloured)
            assert colour == pair[1]
            assert (kind, colour) not in UNSEEN_PAIRS
            assert found(plain) == (kind, None)
            assert kind != pair[0]
            assert len(coloured.split()) - len(plain.split()) == 1  # all else is said in the same words
        assert len(each.whole.split()) - len(each.kind.split()) == 1
    assert {found(each.whole) for each in said} == UNSEEN_PAIRS


class Independent(nn.Module):
    """A network in which what it is told of adds up; a token's features say how much of each is there."""

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        told = context.sum(1)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        return 0.3 * x + told[:, : x.shape[1]]


def told(texts: list[str]) -> Tensor:
    """A vector of each word, [N, 1, 4], the same for the nouns of a kind."""
    rows = []
    for text in texts:
        words = [NOUNS.get(word, word) for word in text.replace(",", "").split() if word not in ("a", "an")]
        seeds = [int.from_bytes(word.encode()[:6], "little") for word in words]
        some = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        rows.append(torch.stack(some).sum(0) if some else torch.zeros(4))
    return torch.stack(rows)[:, None] * 0.1


@pytest.mark.parametrize(("others", "itself"), [(1, 0.0), (3, 0.5)])
def test_a_composition_is_the_picture_where_kind_and_colour_are_independent(
    tmp_path: Path, others: int, itself: float
) -> None:
    settings = ImaginedConfig(share=0.5, count=50, others=others, itself=itself, steps=6, guidance=2.0, seed=5)
    objective = Objective(DenoisingLoss(), "v_prediction", SCHEDULER)
    network: Any = Independent()
    made = imagine(settings, network, told, objective, (4, 2, 2), tmp_path)
    for first, last in ((0, 48), (48, 50)):
        texts = made.captions[first:last]
        context = torch.cat([told([""] * len(texts)), told(texts)])
        noise = torch.randn(len(texts), 4, 2, 2, generator=torch.Generator().manual_seed(5 + first))
        sigmas = trailing(objective.schedule, 6)
        x = noise * (1 + sigmas[0] ** 2) ** 0.5
        denoise = denoiser(lambda x, t, c=context: network(x, t, c), objective.schedule, objective.prediction)
        for step in euler(guide_doubled(denoise, 2.0), x, sigmas, lambda index, noise=noise: noise):
            x = step.x
        torch.testing.assert_close(made.latents[first:last], x, rtol=1e-4, atol=1e-4)
    kept = imagine(settings, network, lambda texts: torch.empty(0), objective, (4, 2, 2), tmp_path)  # read, not drawn
    assert torch.equal(kept.latents, made.latents)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.start_model("sd1", tmp_path_factory.mktemp("start"))


def sections(start: Path, **imagined: Any) -> dict[str, dict[str, Any]]:
    return {"start": {"model": str(start)}, "data": WORLD, "imagined": {"count": 3, "steps": 2, **imagined}}


def test_they_take_the_place_of_their_share_of_the_samples(start: Path, tmp_path: Path) -> None:
    given = sections(start, share=0.3)
    path = tmp_path / "run.toml"
    run = {**tiny.RUN, "output": str(tmp_path / "run"), "batch": 400, "microbatch": 1}
    path.write_text(tiny.toml({**given, "run": run, "loss": {"drop": 0.0}, "data": {**WORLD, "seed": 3}}))
    config = read_config(path)
    task = UNetTask(config)
    assert task.imagined is not None
    [part] = passes(config.run, 0, 0)
    batch = task.draw(part)
    places = task.imagined.places(part)
    assert len(places) / 400 == pytest.approx(0.3, abs=0.07)  # three deviations
    assert batch.said is not None
    for at in range(400):
        text = batch.said.texts[int(batch.said.rows[at])]
        if at in places:
            assert torch.equal(batch.clean[at], task.imagined.latents[places[at]])
            assert text == task.imagined.captions[places[at]]
            assert found(text) in UNSEEN_PAIRS
        else:
            assert found(text) not in UNSEEN_PAIRS


def test_a_model_composes_what_a_run_that_starts_from_it_does(start: Path, tmp_path: Path) -> None:
    composed = []
    for name, more in (("own", {}), ("other", {"model": str(start)})):
        given = sections(start, share=0.3)
        given["imagined"] |= more
        path = tmp_path / f"{name}.toml"
        run = {**tiny.RUN, "output": str(tmp_path / name)}
        path.write_text(tiny.toml({**given, "run": run, "data": {**WORLD, "seed": 3}}))
        imagined = UNetTask(read_config(path)).imagined
        assert imagined is not None
        composed.append(imagined.latents)
    torch.testing.assert_close(*composed, rtol=1e-4, atol=1e-4)


def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(start: Path, tmp_path: Path) -> None:
    tiny.assert_interruption_changes_nothing("unet", tmp_path, sections(start, share=0.5))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("unet", {"imagined": {"share": 0.0}}, r"imagined\.share is 0\.0"),
        ("unet", {"imagined": {"share": 0.5, "count": 0}}, r"imagined\.count is 0"),
        ("unet", {"imagined": {"share": 0.5, "others": 4}}, r"imagined\.others is 4; it is from 1 to 3"),
        ("unet", {"imagined": {"share": 0.5, "colour": 0.0}}, r"imagined\.colour is 0\.0"),
        ("unet", {"imagined": {"share": 0.5, "itself": 1.0}}, r"imagined\.itself is 1\.0"),
        ("unet", {"imagined": {"share": 0.5}, "loss": {"layout": 0.3}}, r"loss\.layout needs to know where"),
        ("unet", {"imagined": {"share": 0.5}, "data": {"source": "folder"}}, r"things of the drawn world"),
        ("text", {"imagined": {"share": 0.5}}, r"\[imagined\] is for unet, not for text"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    start: Path, tmp_path: Path, kind: str, wrong: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.train(kind, tmp_path / "run", {**sections(start), **wrong})
    assert not (tmp_path / "run").exists()
