"""OpenAI's bodies to requests. Names, ranges and defaults are those of its API reference and its client's types."""

import json

import pytest

from sfumato.server.dialects.openai_lowering import Order, lower
from sfumato.server.problems import Problem

PICTURES = {"image": "sha256:" + "a" * 64}


def test_the_least_that_a_client_may_send() -> None:
    order = lower({"prompt": "a red house"}, {}, "generations")
    assert (order.response_format, order.output_format, order.stream) == ("b64_json", "png", False)
    assert order.request.prompt == "a red house"
    assert (order.request.count, order.request.width, order.request.seed) == (1, None, None)


def test_all_of_openais_fields_are_read() -> None:
    body = {
        "prompt": "a",
        "model": "embedded",
        "n": 3,
        "size": "256x128",
        "quality": "hd",
        "style": "vivid",
        "response_format": "url",
        "output_format": "webp",
        "output_compression": 60,
        "background": "auto",
        "moderation": "low",
        "user": "u-1",
        "stream": True,
        "partial_images": 2,
    }
    order = lower(body, {}, "generations")
    request = order.request
    assert (request.model, request.count, request.width, request.height) == ("embedded", 3, 256, 128)
    assert (order.response_format, order.output_format, order.compression) == ("url", "webp", 60)
    assert (order.stream, order.partial_images) == (True, 2)


def test_fields_of_a_request_may_stand_beside_openais() -> None:
    body = {"prompt": "a", "negative_prompt": "b", "seed": 7, "steps": 12, "guidance": 3.5, "sampler": "euler_a"}
    request = lower(body, {}, "generations").request
    assert (request.negative_prompt, request.seed, request.steps) == ("b", 7, 12)
    assert (request.guidance, request.sampler) == (3.5, "euler_a")


def test_a_forms_texts_are_read_as_numbers_and_truths() -> None:
    form = {
        "prompt": "3",
        "n": "2",
        "seed": "7",
        "guidance": "3.5",
        "strict": "true",
        "stream": "false",
        "size": "auto",
    }
    order = lower(form, PICTURES, "edits")
    request = order.request
    assert (request.prompt, request.count, request.seed, request.guidance, request.strict) == ("3", 2, 7, 3.5, True)
    assert order.stream is False


def test_an_edit_may_say_how_its_mask_acts() -> None:
    masked = {**PICTURES, "mask": "sha256:" + "b" * 64}
    assert lower({"prompt": "a", "masking": "blend"}, masked, "edits").request.masking == "blend"
    with pytest.raises(Problem) as caught:
        lower({"prompt": "a", "masking": "both"}, masked, "edits")
    assert (caught.value.status, caught.value.field) == (400, "masking")


def test_an_edit_takes_the_picture_and_the_mask() -> None:
    request = lower({"prompt": "a"}, {**PICTURES, "mask": "sha256:" + "b" * 64}, "edits").request
    assert (request.image, request.mask, request.strength) == (PICTURES["image"], "sha256:" + "b" * 64, None)


def test_a_variation_needs_no_prompt_and_keeps_some_of_the_picture() -> None:
    request = lower({"n": 2}, PICTURES, "variations").request
    assert (request.prompt, request.count, request.strength) == ("", 2, 0.7)
    assert lower({"strength": 0.3}, PICTURES, "variations").request.strength == 0.3


WRONG = [
    ({}, "prompt", "missing_required_parameter"),
    ({"prompt": "  "}, "prompt", "missing_required_parameter"),
    ({"prompt": 3}, "prompt", "invalid_type"),
    ({"prompt": "x" * 32_001}, "prompt", "too_long"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 11}, "n", "invalid_value"),
    ({"n": True}, "n", "invalid_value"),
    ({"size": "large"}, "size", "invalid_value"),
    ({"size": "8x8"}, "size", "invalid_value"),
    ({"size": "99999x16"}, "size", "invalid_value"),
    ({"response_format": "png"}, "response_format", "invalid_value"),
    ({"output_format": "gif"}, "output_format", "invalid_value"),
    ({"output_compression": 101}, "output_compression", "invalid_value"),
    ({"partial_images": 4}, "partial_images", "invalid_value"),
    ({"stream": "perhaps"}, "stream", "invalid_type"),
    ({"background": "transparent"}, "background", "invalid_value"),
    ({"steps": 0}, "steps", "invalid_value"),
    ({"nonsense": 1}, "nonsense", "unknown_parameter"),
    ({"count": 2}, "count", "unknown_parameter"),
]


@pytest.mark.parametrize(("body", "param", "code"), WRONG)
def test_what_is_wrong_is_a_400_that_names_the_parameter(body: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        lower(body if param == "prompt" else {"prompt": "a", **body}, {}, "generations")
    assert (caught.value.status, caught.value.field, caught.value.code) == (400, param, code)


def test_an_edit_without_a_picture_is_refused() -> None:
    with pytest.raises(Problem, match="Missing required parameter: 'image'"):
        lower({"prompt": "a"}, {}, "edits")


def test_an_order_of_json_is_the_same_as_of_python() -> None:
    body = {"prompt": "ä", "n": 2, "seed": 2**63, "guidance_interval": [0.1, 0.9]}
    order = lower(json.loads(json.dumps(body)), {}, "generations")
    assert isinstance(order, Order) and order.request.seed == 2**63
    assert order.request.guidance_interval == (0.1, 0.9)
