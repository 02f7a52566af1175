"""No text of a request is passed on undecided."""

from collections.abc import Iterator
from typing import Any

import pytest

from sfumato.errors import RequestError
from sfumato.request import Request
from sfumato.server.schema_of_request import request_schema
from sfumato.server.texts import ROLES, texts


def places(schema: dict[str, Any], place: str, parts: dict[str, Any]) -> Iterator[str]:
    """Where a request may have a text that is not one of a few choices."""
    if "$ref" in schema:
        yield from places(parts[schema["$ref"].rpartition("/")[2]], place, parts)
    for form in schema.get("anyOf", []):
        yield from places(form, place, parts)
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        yield place
    for item in [*([schema["items"]] if "items" in schema else []), *schema.get("prefixItems", [])]:
        yield from places(item, f"{place}[]", parts)
    for name, field in schema.get("properties", {}).items():
        yield from places(field, f"{place}.{name}" if place else name, parts)


def test_every_text_of_a_request_is_known_to_be_words_a_picture_or_a_name() -> None:
    schema = request_schema()
    found = set(places(schema, "", schema["$defs"]))
    assert found - set(ROLES) == set(), "say in ROLES what these are; a path they must not be"


def test_loras_in_prompts_are_names_too() -> None:
    request = Request(prompt=("a <lora:/etc/passwd:1> b", "c"), count=2)
    assert ("prompt", "lora", "/etc/passwd") in list(texts(request))


def test_a_text_of_an_unknown_field_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Request, "to_dict", lambda self: {"prompt": "x", "count": 1, "new": "../x"})
    with pytest.raises(RequestError, match="does not take"):
        list(texts(Request(prompt="x")))
