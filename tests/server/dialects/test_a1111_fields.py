"""How A1111's clients send numbers, truths and pictures, and what is refused with a field's name."""

import base64

import pytest

from sfumato.server.dialects.a1111_fields import Fields
from sfumato.server.dialects.encoded import decode_picture, encode_picture
from sfumato.server.problems import Problem


def test_null_is_as_good_as_left_out() -> None:
    for fields in (Fields({}), Fields(dict.fromkeys(("t", "n", "w", "f", "i", "o")))):
        assert fields.text("t", "x") == "x"
        assert fields.number("n", 7.0) == 7.0
        assert fields.whole("w", 20) == 20
        assert fields.flag("f", True) is True
        assert fields.items("i") == [] and fields.object("o") == {}
        assert not fields.has("t")


@pytest.mark.parametrize(("sent", "read"), [(20, 20), ("20", 20), (20.0, 20), ("-1", -1), (2**63 + 1, 2**63 + 1)])
def test_whole_numbers_may_be_text_and_stay_exact(sent: object, read: int) -> None:
    assert Fields({"steps": sent}).whole("steps", 0) == read


@pytest.mark.parametrize(("sent", "read"), [(True, True), (0, False), (1, True), ("false", False), ("True", True)])
def test_truths_may_be_numbers_or_words(sent: object, read: bool) -> None:
    assert Fields({"tiling": sent}).flag("tiling") is read


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("whole", 1.5),
        ("whole", "many"),
        ("whole", [1]),
        ("number", "nan"),
        ("number", "1e999"),
        ("number", {}),
        ("flag", 2),
        ("flag", []),
        ("text", 3),
        ("items", "a"),
        ("object", []),
    ],
)
def test_another_kind_of_value_is_refused_by_name(reader: str, value: object) -> None:
    fields = Fields({"field": value})
    more = {"whole": (0,), "number": (0.0,)}.get(reader, ())
    with pytest.raises(Problem, match=r"^field is ") as caught:
        getattr(fields, reader)("field", *more)
    assert (caught.value.status, caught.value.field) == (422, "field")


def test_pictures_come_as_base64_with_or_without_a_data_url() -> None:
    picture = bytes(range(256))
    plain = base64.b64encode(picture).decode()
    assert decode_picture("mask", plain) == picture
    assert decode_picture("mask", f"data:image/png;base64,{plain}") == picture
    assert decode_picture("mask", "\n".join(plain[i : i + 76] for i in range(0, len(plain), 76))) == picture
    assert decode_picture("mask", plain.rstrip("=")) == picture
    assert decode_picture("mask", encode_picture(picture)) == picture


@pytest.mark.parametrize("value", ["", "data:image/png;base64,", "not base64!", None, 3, ["QQ=="]])
def test_what_is_no_picture_in_base64_is_refused_by_name(value: object) -> None:
    with pytest.raises(Problem, match="Invalid encoded image: init_images") as caught:
        decode_picture("init_images", value)
    assert (caught.value.status, caught.value.field) == (422, "init_images")


def test_addresses_are_not_followed() -> None:
    with pytest.raises(Problem, match="requests are not allowed"):
        decode_picture("init_images", "http://169.254.169.254/latest/meta-data")
