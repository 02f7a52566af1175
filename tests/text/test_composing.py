"""AND between prompts, and LoRAs that are named in one."""

import pytest

from sfumato.errors import PromptError, RequestError
from sfumato.request import Lora
from sfumato.text.composing import parts
from sfumato.text.networks import without_networks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog", [("a cat", 1.0), ("a dog", 1.0)]),
        ("a cat :1.2 AND a dog AND a bird: -.5 ", [("a cat", 1.2), ("a dog", 1.0), ("a bird", -0.5)]),
        ("(a:1.3) AND [b:c:0.5]", [("(a:1.3)", 1.0), ("[b:c:0.5]", 1.0)]),
        ("sAND ANDY and AND_", [("sAND ANDY and AND_", 1.0)]),
        ("at 12:30", [("at 12:30", 1.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
        ("a :1 AND b :x", [("a", 1.0), ("b :x", 1.0)]),
    ],
)
def test_and_divides_and_numbers_weigh(text: str, expected: list[tuple[str, float]]) -> None:
    assert [(part.text, part.weight) for part in parts(text)] == expected


@pytest.mark.parametrize(
    ("text", "rest", "loras"),
    [
        ("a <lora:style:0.8> cat", "a  cat", [Lora("style", 0.8, 0.8)]),
        ("<lora:style>", "", [Lora("style", 1.0, 1.0)]),
        ("<lora:style:0.5:0.8>", "", [Lora("style", 0.8, 0.5)]),  # the text encoders come first
        ("<lyco:a b:-1><lora:c:te=0.2:unet=0.9>", "", [Lora("a b", -1.0, -1.0), Lora("c", 0.9, 0.2)]),
        ("<lora:c:0.4:unet=0.9>", "", [Lora("c", 0.9, 0.4)]),
        ("<toy> <a:b> 1 < 2", "<toy> <a:b> 1 < 2", []),
        ("<lora:x", "<lora:x", []),
    ],
)
def test_loras_are_taken_out_of_the_prompt(text: str, rest: str, loras: list[Lora]) -> None:
    assert without_networks(text) == (rest, tuple(loras))


@pytest.mark.parametrize("text", ["<lora:>", "<lora:a:b>", "<lora:a:1:2:3>", "<lora:a:1:dyn=4>", "<lora:a:nan>"])
def test_a_lora_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(PromptError, match="write <lora:name"):
        without_networks(text)


def test_other_networks_and_weights_out_of_range_are_told() -> None:
    with pytest.raises(PromptError, match="hypernetwork"):
        without_networks("<hypernet:a:1>")
    with pytest.raises(RequestError, match="from -10 to 10"):
        without_networks("<lora:a:99>")
