"""What is drawn in prompts: by the rules of sd-dynamic-prompts, as a pure function of the seed."""

import math
from collections import Counter

import pytest
from text_growth import lines_run

from sfumato.errors import PromptError
from sfumato.text.wildcards import Draws, drawn

FILES = {
    "colour": ("red", "blue", "green"),
    "pets/small": ("a __colour__ mouse", "{a|one} hamster"),
    "pets/*": ("a cat",),
    "two words": ("spaced",),
    "loop": ("x __loop__",),
    "silent": ("{1$$__silent__}",),
    "growing": ("__loop2__ __loop2__",),
    "loop2": ("__growing__ __growing__",),
}


def lines(name: str) -> tuple[str, ...]:
    if name not in FILES:
        raise PromptError(f"no wildcard {name}", "prompt")
    return FILES[name]


def said(text: str, seed: int) -> str:
    return drawn(text, Draws(seed, "prompt"), lines)


def outcomes(text: str, seeds: int = 300) -> set[str]:
    return {said(text, seed) for seed in range(seeds)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a|b|c} d", {"a d", "b d", "c d"}),
        ("{a|{b|c}}", {"a", "b", "c"}),
        ("{|x}y", {"y", "xy"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{-1$$a|b}", {"a", "b"}),  # without a lower bound at least one, as in dynamicprompts 0.31
        ("{0-1$$a|b}", {"", "a", "b"}),
        ("[{2$$|$$a|b}]", {"[a|b]", "[b|a]"}),  # a bar may join, so that what is drawn takes turns
        ("{2$$ | $$a|__colour__}", {f"{x} | {y}" for c in ("red", "blue", "green") for x, y in (("a", c), (c, "a"))}),
        ("{2-$$ $$a|b}", {"a b", "b a"}),
        ("{9$$a|b}", {"a, b", "b, a"}),
        ("__colour__ x", {"red x", "blue x", "green x"}),
        ("{2$$-$$__colour__}", {"red-blue", "red-green", "blue-red", "blue-green", "green-red", "green-blue"}),
        ("{a __colour__|b}", {"a red", "a blue", "a green", "b"}),
        ("__pets/small__", {"a red mouse", "a blue mouse", "a green mouse", "a hamster", "one hamster"}),
        ("__pets/*__ and __two words__", {"a cat and spaced"}),
        ("{0::a|1::b}", {"b"}),
        ("{a}", {"{a}"}),  # braces without a choice are text
        ("{{masterpiece}}", {"{{masterpiece}}"}),
        (r"\{a|b\}", {"{a|b}"}),
        ("a|b", {"a|b"}),
        ("{a|b", {"{a|b"}),
        ("a|b}", {"a|b}"}),
        ("snake_case __ x __ ____", {"snake_case __ x __ ____"}),
        ("(a:1.2) [b|c] <lora:x:1>", {"(a:1.2) [b|c] <lora:x:1>"}),
    ],
)
def test_what_can_be_drawn_is_what_is_drawn(text: str, expected: set[str]) -> None:
    assert outcomes(text) == expected


def test_a_draw_is_a_pure_function_of_the_seed_and_of_its_purpose() -> None:
    text = "{a|b|c|d} {2$$x|y|z} __pets/small__"
    assert [said(text, seed) for seed in range(50)] == [said(text, seed) for seed in range(50)]
    assert len(outcomes(text, 50)) > 20
    other = [drawn(text, Draws(seed, "negative"), lines) for seed in range(50)]
    assert other != [said(text, seed) for seed in range(50)]


def test_every_choice_is_as_frequent_as_its_weight_says() -> None:
    count = 6000
    found = Counter(said("{a|3::b|2::c}", seed) for seed in range(count))
    for choice, share in (("a", 1 / 6), ("b", 3 / 6), ("c", 2 / 6)):
        deviation = math.sqrt(count * share * (1 - share))
        assert abs(found[choice] - count * share) < 4.5 * deviation, choice  # one in 10^5


def test_names_that_are_none_and_circles_are_told() -> None:
    with pytest.raises(PromptError, match="no wildcard animal"):
        said("__animal__", 0)
    with pytest.raises(PromptError, match="names itself"):
        said("__loop__", 0)
    for text in ("__silent__", "{1$$__silent__}"):
        with pytest.raises(PromptError, match="names itself"):
            said(text, 0)
    with pytest.raises(PromptError, match=r"names itself|too deep"):
        said("__growing__", 0)


@pytest.mark.parametrize(
    "piece", ["{", "}", "|", "{a|b}", "{2$$", "__", "_a", "__colour__", "\\{", "{{a|b}|c} ", "{a}"]
)
@pytest.mark.parametrize("tail", ["", "}", "|x}"])
def test_work_grows_as_the_prompt(piece: str, tail: str) -> None:
    short, long = (lines_run(lambda text: said(text, 1), piece * count + tail * count) for count in (200, 2000))
    assert long <= 11 * short


def test_braces_nested_10000_deep_are_no_recursion() -> None:
    assert said("{" * 10_000 + "a" + "|a}" * 10_000, 3) == "a"
