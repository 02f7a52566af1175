"""ComfyUI's dialect: its rules as examples, and a slow statement of them on random parentheses."""

import random
import re

import pytest
from text_growth import lines_run

from sfumato.errors import PromptError
from sfumato.text.chunks import by_words, chunk
from sfumato.text.comfy import parse_comfy
from sfumato.text.spans import Span
from sfumato.text.tokenizer import Tokenizer


def pairs(text: str) -> list[tuple[str, float]]:
    return [(span.text, span.weight) for span in parse_comfy(text) if isinstance(span, Span)]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("((a:1.2))", [("a", 1.2)]),  # the inner number stands for itself; stable-diffusion-webui says 1.32
        ("((a):1.2)", [("a", 1.32)]),  # the inner parentheses multiply what is around them
        ("((a))", [("a", 1.21)]),
        ("(a (b:0.5) c:1.4)", [("a ", 1.4), ("b", 0.5), (" c", 1.4)]),
        ("[a] BREAK b AND c", [("[a] BREAK b AND c", 1.0)]),  # no marks here
        (r"\(a\) (b\):1.3)", [("(a) ", 1.0), ("b)", 1.3)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:1.2:1.5)", [("a:1.2", 1.5)]),  # the last colon counts
        ("(:1.2)", [(":1.2", 1.1)]),  # a colon in front of which nothing stands is text
        ("a (b", [("a ", 1.0), ("(b", 1.0)]),
        ("(a (b:1.5) c", [("(a (b:1.5) c", 1.0)]),  # never closed: all that follows is text
        ("((a)", [("(a", 1.1)]),
        ("a) (b) c", [("a) (b) c", 1.0)]),  # after a parenthesis that closes nothing, the next pair is text
        ("a) (b) (c)", [("a) (b) (c)", 1.0)]),
        ("a) ((b) c)", [("a) (", 1.0), ("b", 1.1), (" c)", 1.0)]),
        ("(a)(b)", [("a", 1.1), ("b", 1.1)]),
        ("()", []),
        ("", []),
        ("(a:1e1)", [("a", 10.0)]),
        ("(a: 1.3 )", [("a", 1.3)]),
    ],
)
def test_the_rules_of_comfyui(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert pairs(prompt) == spans


def stated(text: str, weight: float = 1.0) -> list[tuple[str, float]]:
    """The rules, level by level: cut at the outermost parentheses, then the same for what is in each."""
    items, begin, level = [], 0, 0
    for place, character in enumerate(text):
        if character == "(":
            if level == 0:
                items.append(text[begin:place])
                begin = place
            level += 1
        elif character == ")":
            level -= 1
            if level == 0:
                items.append(text[begin : place + 1])
                begin = place + 1
    found = []
    for item in [*items, text[begin:]]:
        if len(item) >= 2 and item[0] == "(" and item[-1] == ")":
            inner, own = item[1:-1], weight * 1.1
            words, colon, number = inner.rpartition(":")
            if colon and words and re.fullmatch(r"[\d.]+", number) and number.count(".") < 2 and number != ".":
                inner, own = words, float(number)
            found += stated(inner, own)
        elif item:
            found.append((item, weight))
    return found


def test_random_parentheses_are_read_as_stated() -> None:
    chooser = random.Random(3)
    for _ in range(3000):
        prompt = "".join(chooser.choices(["(", ")", "a", "b ", ":1.3)", ":0.5)", ":"], k=chooser.randrange(1, 24)))
        ours = [(text, round(weight, 9)) for text, weight in pairs(prompt)]
        assert ours == [(text, round(weight, 9)) for text, weight in stated(prompt)], prompt


@pytest.mark.parametrize("piece", ["(", ")", "(a)", "((a) b:1.2)", ":", "(:", "a ", "\\(", ") (", "(a:1.2)"])
@pytest.mark.parametrize("tail", ["", ")"])
def test_work_grows_as_the_prompt(piece: str, tail: str) -> None:
    short, long = (lines_run(parse_comfy, piece * count + tail * count) for count in (500, 5000))
    assert long <= 11 * short


@pytest.mark.parametrize("depth", [50, 50_000])
def test_deep_nesting_is_no_recursion(depth: int) -> None:
    text = "(" * depth + "a" + ":0.5)" * depth
    assert pairs(text) == [("a", 0.5)]


def test_a_weight_that_cannot_be_is_refused() -> None:
    with pytest.raises(PromptError, match="at most 10000"):
        parse_comfy("(a:99999)")
    with pytest.raises(PromptError, match="nan"):
        parse_comfy("(a:nan)")


def test_chunks_keep_short_words_whole_and_cut_long_ones(clip: Tokenizer) -> None:
    word = "hippopotamuses"  # of several tokens
    count = len(clip.encode(word))
    assert 1 < count < 8
    parts = chunk([Span("a " * 74 + word)], clip, fill=by_words).chunks
    assert [part.length for part in parts] == [74, count]
    long = "zxqvjkwpzxqvjkwpzxqvjkwp"
    assert len(clip.encode(long)) >= 8
    assert chunk([Span("a " * 74 + long)], clip, fill=by_words).chunks[0].length == 75
