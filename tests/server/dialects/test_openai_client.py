"""OpenAI's API as its own client from PyPI calls it, with the embedded model behind it."""

import base64
import io
import warnings
from typing import Any

import httpx2
import numpy as np
import pytest
from drawing_server import TOKEN
from PIL import Image

openai = pytest.importorskip("openai", reason="openai, OpenAI's client from PyPI, is not installed")

HOUSE = "a red house on green grass"
SMALL = {"size": "128x128"}
OURS = {"seed": 42, "steps": 6, "guidance": 4.0}


@pytest.fixture(scope="module")
def client(drawing: str) -> Any:
    return openai.OpenAI(base_url=f"{drawing}/v1", api_key=TOKEN, max_retries=0)


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


@pytest.fixture(scope="module")
def house(client: Any) -> bytes:
    answer = client.images.generate(prompt=HOUSE, **SMALL, extra_body=OURS)
    assert answer.size == "128x128" and answer.output_format == "png"
    assert answer.usage.input_tokens == 6
    return base64.b64decode(answer.data[0].b64_json)


def test_models_are_listed(client: Any) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model


def test_words_become_pictures(client: Any, house: bytes) -> None:
    answer = client.images.generate(prompt=HOUSE, n=2, model="drawn-world", **SMALL, extra_body=OURS)
    first, second = (opened(each.b64_json) for each in answer.data)
    assert first.tobytes() == Image.open(io.BytesIO(house)).tobytes() != second.tobytes()


def test_an_address_leads_to_the_picture(client: Any) -> None:
    answer = client.images.generate(prompt=HOUSE, response_format="url", output_format="jpeg", **SMALL, extra_body=OURS)
    file = httpx2.get(answer.data[0].url, headers={"Authorization": f"Bearer {TOKEN}"})
    assert Image.open(io.BytesIO(file.content)).format == "JPEG"


def test_a_stream_has_partial_images(client: Any) -> None:
    stream = client.images.generate(
        prompt=HOUSE, stream=True, partial_images=2, **SMALL, extra_body={**OURS, "steps": 60}
    )
    events = list(stream)
    assert events[-1].type == "image_generation.completed"
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partial] == list(range(len(partial))) and partial
    assert [opened(event.b64_json).size for event in events] == [(128, 128)] * len(events)


def test_an_edit_keeps_what_its_mask_covers(client: Any, house: bytes) -> None:
    mask, content = Image.new("RGBA", (128, 128), (0, 0, 0, 255)), io.BytesIO()
    mask.paste((0, 0, 0, 0), (32, 32, 96, 96))
    mask.save(content, "PNG")
    answer = client.images.edit(image=io.BytesIO(house), mask=("m.png", content.getvalue()), prompt="a yellow moon")
    before, after = (
        np.asarray(Image.open(io.BytesIO(each))) for each in (house, base64.b64decode(answer.data[0].b64_json))
    )
    inside = np.zeros((128, 128), bool)
    inside[32:96, 32:96] = True
    assert (after[~inside] == before[~inside]).all()
    assert (after[inside] != before[inside]).mean() > 0.5


def test_an_edit_takes_a_list_of_one(client: Any, house: bytes) -> None:
    answer = client.images.edit(image=[io.BytesIO(house)], prompt="a blue house", extra_body={"steps": 4})
    assert opened(answer.data[0].b64_json).size == (128, 128)


def test_a_variation_is_another_picture(client: Any, house: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenAI has given the endpoint up
        answer = client.images.create_variation(image=io.BytesIO(house), n=1, size="256x256")
    assert opened(answer.data[0].b64_json).size == (256, 256)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"size": "99999x99999"}, "size"),
        ({"n": 50}, "n"),
        ({"extra_body": {"steps": 0}}, "steps"),
    ],
)
def test_a_wrong_request_is_a_bad_request(client: Any, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": HOUSE, **body})
    assert caught.value.param == param


def test_other_errors_are_the_clients_own(client: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt=HOUSE, model="dall-e-9")
    stranger = openai.OpenAI(base_url=str(client.base_url), api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
