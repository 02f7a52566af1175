"""What goes wrong beside the page's own fields: LoRAs that do not fit, models that are gone; and two of one title."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from studio_flows import PHONE, QUICK, ask, draw, result
from studio_server import Server


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a copy of the embedded model beside it, and a LoRA of another family."""
    import torch
    from safetensors.torch import save_file

    from sfumato.weights.locate import embedded

    made = Server(tmp_path_factory.mktemp("twins"))
    home = made.folder / "home"
    home.mkdir()
    shutil.copytree(embedded(), home / "twin")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    halves = {f"{layer}.lora_down.weight": torch.ones(4, 320), f"{layer}.lora_up.weight": torch.ones(320, 4)}
    save_file(halves, home / "foreign.safetensors")
    places = {"twin": ("twin", "model"), "foreign": ("foreign.safetensors", "lora")}
    aliases = {name: {"place": str(home / file), "kind": kind} for name, (file, kind) in places.items()}
    (home / "models.json").write_text(json.dumps({"aliases": aliases}))
    made.start()
    yield made
    made.stop()


def test_models_of_one_title_are_told_apart_and_the_one_of_a_picture_is_chosen_again(twins: Any, tab: Any) -> None:
    page = tab(twins, draft=QUICK)
    models = page.get_by_label("Model", exact=True)
    expect(models.locator("option")).to_have_text(["the drawn world (drawn-world)", "the drawn world (twin)"])
    for name, chosen in (("twin", "twin"), ("drawn-world", "")):  # the default is the form's empty one
        models.select_option(label=f"the drawn world ({name})")
        draw(page, f"a red ball of {name}")
        result(page, f"a red ball of {name}")
        page.get_by_role("button", name="Clear", exact=True).click()
        models.select_option(label="the drawn world (twin)")
        page.get_by_role("button", name="Reuse", exact=True).click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(f"a red ball of {name}")
        expect(models).to_have_value(chosen)


def test_a_lora_that_does_not_fit_is_named_and_its_words_stay_in_their_place(twins: Any, tab: Any) -> None:
    draft = {**QUICK, "loras": [{"name": "foreign", "weight": 1}]}
    page = tab(twins, draft=draft, viewport=PHONE, has_touch=True, is_mobile=True)
    before = ask(page, "/jobs")["jobs"]
    page.get_by_label("Prompt", exact=True).fill("a red house")
    page.get_by_role("button", name="Draw", exact=True).click()
    refusal = page.get_by_text("foreign.safetensors does not fit").first
    expect(refusal).to_be_visible(timeout=60_000)  # when a child has read it
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert ask(page, "/jobs")["jobs"] == before


def test_a_model_that_goes_while_its_job_waits_is_told_of(twins: Any, tab: Any) -> None:
    page = tab(twins, "#/queue")
    long, waiting = (
        ask(page, "/jobs", "POST", {"request": {"prompt": words, **fields}})
        for words, fields in (("the long one", {"steps": 1000}), ("by the twin", {"steps": 3, "model": "twin"}))
    )
    assert waiting["state"] == "queued"
    unet: Path = twins.folder / "home" / "twin" / "unet"
    unet.rename(unet.with_name("elsewhere"))
    ask(page, f"/jobs/{long['id']}/cancel", "POST")
    failed = page.get_by_role("region", name="Ended").get_by_role("listitem").filter(has_text="by the twin")
    expect(failed).to_contain_text("A file that it needs cannot be used: twin: incomplete: unet is missing.")
    unet.with_name("elsewhere").rename(unet)
    failed.get_by_role("button", name="Try again").click()
    done = page.get_by_role("region", name="Ended").get_by_role("listitem").filter(has_text="by the twin")
    expect(done.filter(has_text="Done")).to_have_count(1)
