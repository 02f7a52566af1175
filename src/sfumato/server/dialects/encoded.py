"""Pictures inside JSON: base64, as it is or in a data URL."""

import base64
import binascii

from sfumato.server.problems import Problem


def decode_picture(field: str, value: object) -> bytes:
    """The bytes of a picture that a body's field holds as text. Raises Problem 422 that names the field.

    Addresses are not followed: a server that fetches what it is told to reaches what its clients cannot.
    """
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise Problem(
            422,
            "picture.address",
            f"{field} is an address; requests are not allowed: send the picture itself, as base64",
            field=field,
        )
    text = value if isinstance(value, str) else ""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        decoded = base64.b64decode("".join(text.split()) + "=" * (-len("".join(text.split())) % 4), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        raise Problem(
            422, "picture.encoding", f"Invalid encoded image: {field} must be a picture as base64", field=field
        )
    return decoded


def encode_picture(picture: bytes) -> str:
    """A picture's bytes as base64."""
    return base64.b64encode(picture).decode("ascii")
