"""An evaluation of a tiny model from beginning to end."""

import json

import pytest
from PIL import Image

from sfumato.errors import RequestError
from sfumato.evaluate.measure import evaluate
from sfumato.evaluate.report import Report
from sfumato.evaluate.sheet import contact_sheet
from sfumato.evaluate.suites import SUITES, cases
from sfumato.generation import generate
from sfumato.images import psnr, to_pixels
from sfumato.model import Model
from sfumato.operations import reconstruct
from sfumato.request import Request
from sfumato.scenes.render import render

COUNT = 6


@pytest.fixture(scope="module")
def report(model: Model) -> Report:
    return evaluate(model, ("one", "two"), COUNT, settings=Request(batch=4))


def test_each_suite_has_a_row_of_each_source(report: Report) -> None:
    sources = ["model", "renders", "autoencoder", "shuffled"]
    assert [(row.suite, row.source) for row in report.rows] == [
        (s, source) for s in ("one", "two") for source in sources
    ]
    assert all(row.pictures == COUNT for row in report.rows)


def test_the_same_claims_are_judged_in_every_row_of_a_suite(report: Report) -> None:
    for suite in ("one", "two"):
        said = [{f.attribute: f.said for f in row.figures} for row in report.rows if row.suite == suite]
        assert all(each == said[0] for each in said)


def test_the_renders_are_what_was_asked_for_and_noise_is_not(report: Report) -> None:
    for attribute in ("background", "kind", "place", "colour"):
        assert report.row("one", "renders").figure(attribute).share == 1
    assert report.row("one").figure("kind").share < 0.9


def test_pictures_are_those_that_generate_draws(report: Report, model: Model) -> None:
    sample = report.samples[COUNT + 3]
    (alone,) = generate(model, Request(prompt=sample.prompt, seed=sample.seed), metadata=False)
    difference = (to_pixels([alone]) - to_pixels([sample.picture])).abs() * 127.5
    assert float(difference.max()) <= 2.001  # a picture of a batch is the same picture alone, within 2/255
    assert sample.prompt == cases(SUITES["two"], COUNT)[3].caption.text


def test_the_report_says_with_what_it_was_drawn(report: Report) -> None:
    settings = json.loads(report.to_json())["settings"]
    assert (settings["steps"], settings["guidance"], settings["width"], settings["seed"]) == (2, 2.0, 64, 0)
    assert "prompt" not in settings


def test_the_psnr_is_the_mean_over_the_renders(model: Model) -> None:
    (case,) = cases(SUITES["unseen"], 1)
    found = evaluate(model, ("unseen",), 1, settings=Request(steps=1)).autoencoder_psnr
    levels = ((render([case.scene], 64)[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    made = reconstruct(model, Image.fromarray(levels))
    assert found == pytest.approx(psnr(made.original, made.picture))


def test_progress_is_told_after_each_picture(model: Model) -> None:
    told: list[tuple[int, int]] = []
    evaluate(model, ("one", "unseen"), 2, progressed=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_sheet_has_every_suite(report: Report) -> None:
    sheet = contact_sheet(report)
    assert sheet.mode == "RGB"
    assert sheet.width > sheet.height / 3


def test_an_unknown_suite_is_refused_before_anything_is_drawn(model: Model) -> None:
    with pytest.raises(RequestError, match="there are one, two, unseen"):
        evaluate(model, ("ones",), 1)
