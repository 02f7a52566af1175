"""The JSON schema of a request, from its own fields, ranges and words."""

import re
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from sfumato.request import Request, ranges


@cache
def request_schema() -> dict[str, Any]:
    """Every field with its type, range, default and meaning. Pictures are ids, files are names of the registry."""
    schema: dict[str, Any] = TypeAdapter(Request).json_schema(ref_template="#/components/schemas/{model}")
    schema["additionalProperties"] = False
    meanings = described(Request.__doc__ or "")
    for name, field in schema["properties"].items():
        if name in meanings:
            field["description"] = meanings[name]
        if name in ranges():
            low, high = ranges()[name]
            for form in field.get("anyOf", [field]):
                if form.get("type") in ("integer", "number"):
                    form |= {"minimum": low, "maximum": high}
    for name in ("image", "mask"):
        for form in schema["properties"][name]["anyOf"]:
            if form.get("type") == "string":
                form["pattern"] = "^sha256:[0-9a-f]{64}$"
    return schema


def described(text: str) -> dict[str, str]:
    """What a docstring says of each field: `name   meaning`, perhaps for several names, and over several lines."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        start = re.match(r"    (\w+(?:, \w+)*)\s{2,}(\S.*)", line)
        more = re.match(r"\s{8,}(\S.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif more and names:
            found |= {name: f"{found[name]} {more[1]}" for name in names}
        else:
            names = []
    return found
