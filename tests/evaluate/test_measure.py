"""An evaluation of a tiny model from beginning to end."""

import json
from dataclasses import replace

import pytest
import torch

from sfumato.errors import RequestError
from sfumato.evaluate.artist import ModelArtist
from sfumato.evaluate.measure import DEFAULT, TITLES, chosen, evaluate
from sfumato.evaluate.memorisation import Training
from sfumato.evaluate.readings import rendered
from sfumato.evaluate.report import Report
from sfumato.evaluate.suites import SUITES, cases
from sfumato.generation import generate
from sfumato.images import psnr, ssim, to_pixels
from sfumato.model import Model
from sfumato.operations import reconstruct
from sfumato.request import Request
from sfumato.scenes.reader import Reader, embed

COUNT = 4
FEW = Training(scenes=16)


@pytest.fixture(scope="module")
def report(model: Model) -> Report:
    suites = ("two", "img2img", "inpainting")
    return evaluate(model, suites, COUNT, settings=Request(batch=3), reader=Reader().eval(), training=FEW)


def test_each_suite_has_a_row_of_each_source_and_reader(report: Report) -> None:
    words = ["model", "renders", "autoencoder", "shuffled", "empty"]
    strengths = [f"strength {s}" for s in (0.2, 0.4, 0.6, 0.8)]
    expected = [
        *(("two", source) for source in words),
        *(("img2img", source) for source in (*strengths, "renders", "start")),
        *(("inpainting", source) for source in ("model", "renders", "start")),
    ]
    readers = ("learned", "rules", "agreement")
    assert [(r.suite, r.source, r.reader) for r in report.rows] == [
        (*e, reader) for e in expected for reader in readers
    ]
    assert {row.pictures for row in report.rows} == {COUNT, 2}  # img2img draws at least two scenes at each strength


def test_the_same_claims_are_judged_in_every_row_of_a_suite(report: Report) -> None:
    for suite, sources in (
        ("two", ("model", "renders", "shuffled")),
        ("img2img", ("strength 0.2", "renders", "start")),
    ):
        said = [{f.attribute: f.said for f in report.row(suite, source).figures} for source in sources]
        assert all(each.keys() == said[0].keys() for each in said)


def test_pictures_are_those_that_generate_draws(report: Report, model: Model) -> None:
    sample = report.samples[3]
    (alone,) = generate(model, Request(prompt=sample.prompt, seed=sample.seed), metadata=False)
    difference = (to_pixels([alone]) - to_pixels([sample.picture])).abs() * 127.5
    assert float(difference.max()) <= 2.001  # a picture of a batch is the same picture alone, within 2/255
    assert sample.prompt == cases(SUITES["two"], COUNT)[3].caption.text


def test_inpainting_leaves_the_bytes_outside_of_the_mask(report: Report) -> None:
    assert report.row("inpainting").figure("outside").share == 1
    assert [seam.source for seam in report.seams] == ["model", "renders", "start"]


def test_the_report_says_with_what_it_was_drawn(report: Report) -> None:
    settings = json.loads(report.to_json())["settings"]
    assert (settings["steps"], settings["guidance"], settings["width"], settings["seed"]) == (2, 2.0, 64, 0)
    assert not {"prompt", "image", "mask", "strength"} & settings.keys()
    assert report.drawn == COUNT + COUNT + 8 + COUNT  # of no words, of words, at four strengths, in masks
    assert report.speed > 0


def test_masking_is_for_the_masked_pictures_and_told_in_the_report(model: Model) -> None:
    class Watching:
        """A companion that notes that it was asked, and gives the model as it is."""

        files = ()
        asked = 0

        def inpainter(self, model: Model) -> Model:
            self.asked += 1
            return replace(model, companion=None)

    watching = Watching()
    able = replace(model, companion=watching)
    settings = Request(steps=1, width=64, height=64, masking="blend")
    report = evaluate(able, ["size", "inpainting"], 1, settings=settings)
    assert report.settings["masking"] == "blend" and not watching.asked
    assert evaluate(able, ["inpainting"], 1, settings=replace(settings, masking="network")).drawn == 1
    assert watching.asked
    with pytest.raises(RequestError, match="has none that sees a mask"):
        evaluate(model, ["inpainting"], 1, settings=replace(settings, masking="network"))
    with pytest.raises(RequestError, match="no suite has a mask"):
        evaluate(able, ["size"], 1, settings=settings)


def test_quality_is_the_mean_over_the_renders(report: Report, model: Model) -> None:
    renders = rendered([case.scene for case in cases(SUITES["two"], COUNT)], 64)
    made = [reconstruct(model, picture) for picture in renders]
    assert report.quality is not None
    assert report.quality.psnr == pytest.approx(sum(each.psnr for each in made) / COUNT, abs=0.01)  # batched there
    assert report.quality.ssim == pytest.approx(sum(each.ssim for each in made) / COUNT, abs=0.001)


def test_ssim_and_psnr_are_one_for_the_same_symmetric_and_known_for_a_shift() -> None:
    one, other = rendered([case.scene for case in cases(SUITES["one"], 2)], 64)
    assert ssim(one, one) == pytest.approx(1, abs=1e-12)
    assert ssim(one, other) == pytest.approx(ssim(other, one), abs=1e-12)
    assert psnr(one, other) == psnr(other, one)
    dark, light = (one.point(lambda level, by=by: 100 + by) for by in (0, 10))  # of plain grey
    luminance = (2 * 100 * 110 + 2.55**2) / (100**2 + 110**2 + 2.55**2)  # Wang et al. 2004, equation 6; C1 = 2.55^2
    assert ssim(dark, light) == pytest.approx(luminance, abs=1e-9)
    shifted = one.point(lambda level: min(level, 245) + 5), one.point(lambda level: min(level, 245))
    assert psnr(*shifted) == pytest.approx(34.151, abs=1e-3)  # 20 lg(255 / 5)


def test_distances_have_floors_of_the_same_pictures(report: Report) -> None:
    assert [(d.suite, d.source, d.pictures) for d in report.distances] == [
        ("two", source, COUNT) for source in ("model", "renders", "autoencoder")
    ]


def test_features_are_what_the_background_head_is_given() -> None:
    reader, seen = Reader().eval(), []
    reader.whole.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        reader(pixels)
    assert torch.equal(embed(reader, pixels), seen[0])


def test_progress_is_told_after_each_picture(model: Model) -> None:
    told: list[tuple[int, int]] = []
    evaluate(
        model,
        ("one", "img2img", "inpainting"),
        2,
        training=FEW,
        progressed=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 14) for done in range(1, 15)]


def test_one_picture_is_enough_and_has_no_distance(model: Model) -> None:
    assert evaluate(model, ("style",), 1, training=FEW).distances == ()


def test_all_is_every_suite_and_names_count_once() -> None:
    assert chosen(["one", "all"], 5) == tuple(TITLES)
    assert chosen(["two", "one", "two"], 5) == ("two", "one")
    assert set(DEFAULT) <= set(TITLES)


@pytest.mark.parametrize(
    ("suites", "count", "field"),
    [(["one", "three"], 10, "suites"), ([], 10, "suites"), (["one"], 0, "count"), (["one"], 10_001, "count")],
)
def test_what_cannot_be_measured_is_refused_by_name(suites: list[str], count: int, field: str) -> None:
    with pytest.raises(RequestError) as refused:
        chosen(suites, count)
    assert refused.value.field == field


@pytest.mark.parametrize("size", [32, 512])
def test_a_model_of_another_size_than_the_drawn_worlds_is_refused(model: Model, size: int) -> None:
    other = replace(model, family=replace(model.family, size=size))
    with pytest.raises(RequestError, match=f"draws {size}x{size} pixels; the drawn world is square, of 64 to 256"):
        ModelArtist.of(other)


def test_an_unknown_suite_is_refused_before_anything_is_drawn(model: Model) -> None:
    with pytest.raises(RequestError, match="suites is ones; there are one, two, unseen"):
        evaluate(model, ("ones",), 1)
