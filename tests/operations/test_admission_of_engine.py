"""An engine refuses before it reads a weight."""

from collections.abc import Callable
from typing import Any

import pytest
from tiny_models import Pair

from sfumato.engine import Engine
from sfumato.errors import ModelNotFoundError, RequestError
from sfumato.request import Request


@pytest.mark.parametrize(
    "fields",
    [
        {"eta": 0.5, "sampler": "dpmpp_2m"},
        {"clip_skip": 3},
        {"tiling": "x", "width": 72},
        {"perturbed_attention": {"layers": ["nose"]}},
        {"self_attention_guidance": True, "width": 32},
        {"prompt": "(x:1.2.3)"},
        {"hires": {"scale": 2, "prompt": "<lora:ink:1>"}},
        {"hires": {"scale": 2, "upscaler": "there is no such network"}},
        {"original_size": (64, 64)},
        {"loras": ["there is no such LoRA"]},
        {"embeddings": ["there is no such embedding"]},
        {"steps": 101, "hires": {"scale": 2, "strength": 0.1, "strength_rule": "whole"}},
        {"controls": [{"model": "there is no such network", "image": "x.png"}]},
    ],
)
def test_what_cannot_work_is_told_before_the_model_is_loaded(
    pair: Callable[[str], Pair], fields: dict[str, Any]
) -> None:
    place = str(pair("sd1").ours.source)
    engine = Engine("cpu")
    request = Request(**{"prompt": "x", "model": place, "steps": 1, "width": 64, "height": 64, **fields})
    with pytest.raises((RequestError, ModelNotFoundError)):
        list(engine.run(request))
    assert not engine.is_loaded(place)
    assert [event for event in engine.run(Request(prompt="x", model=place, steps=1, width=64, height=64))]
