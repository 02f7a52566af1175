"""What a prompt says: stable-diffusion-webui's dialect against its own documentation and its plain definition."""

import random
import re
import time
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import PromptError
from sfumato.text.a1111 import parse_a1111
from sfumato.text.chunks import Chunk, chunk, empty_chunk
from sfumato.text.prompt import parse, parse_plain, report
from sfumato.text.spans import Span
from sfumato.text.tokenizer import Tokenizer


def pairs(text: str) -> list[tuple[str, float]]:
    return [(span.text, span.weight) if isinstance(span, Span) else ("BREAK", -1.0) for span in parse_a1111(text)]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_the_examples_of_stable_diffusion_webui(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert pairs(prompt) == spans


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("((a:1.2))", [("a", 1.32)]),  # nested weights multiply here; ComfyUI would say 1.2
        ("[a]", [("a", 0.909090909091)]),
        ("[(a)]", [("a", 1.0)]),
        ("(a: 1.2 )", [("a", 1.2)]),
        ("(a:-.5)", [("a", -0.5)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a:1.0)", [("a", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("[a:1.2)", [("a:1.2)", 0.909090909091)]),  # a weight belongs to parentheses
        ("a:1.2) b) c]", [("a:1.2) b) c]", 1.0)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 0.909090909091)]),  # the two kinds are independent
        (r"\\(a\\)", [("\\", 1.0), ("a\\", 1.1)]),
        (r"a\b\:c", [("ab:c", 1.0)]),
        ("a\\", [("a", 1.0)]),
        ("", []),
        ("()[]", []),
        ("a(:1.2)b", [("ab", 1.0)]),
    ],
)
def test_weights_brackets_and_escapes(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert pairs(prompt) == spans


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a BREAK b", [("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]),
        ("a\n BREAK \tb", [("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]),
        ("BREAK a BREAK BREAK", [("BREAK", -1.0), ("a", 1.0), ("BREAK", -1.0), ("BREAK", -1.0)]),
        ("(a BREAK b:1.2) c", [("a", 1.2), ("BREAK", -1.0), ("b", 1.2), (" c", 1.0)]),
        ("BREAKFAST break unBREAK BREAK_", [("BREAKFAST break unBREAK BREAK_", 1.0)]),
        ("a,BREAK,b", [("a,", 1.0), ("BREAK", -1.0), (",b", 1.0)]),
    ],
)
def test_break_is_a_word_of_its_own_that_takes_the_space_around_it(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert pairs(prompt) == spans


def parsed_slowly(text: str) -> list[tuple[str, float]]:
    """The definition: on closing, a bracket multiplies everything since it was opened; unclosed ones at the end."""
    found: list[list[str | float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for item in found[start:]:
            item[1] = float(item[1]) * factor

    for mark in re.findall(r":[\d.]+\)|.", text):
        if mark in opened:
            opened[mark].append(len(found))
        elif mark == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif mark == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        elif mark.startswith(":") and len(mark) > 1 and opened["("]:
            multiply(opened["("].pop(), float(mark[1:-1]))
        else:
            found.append([mark, 1.0])
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    rounded = [(str(mark), float(f"{weight:.9g}")) for mark, weight in found]
    return [("".join(mark for mark, _ in run), weight) for weight, run in groupby(rounded, key=lambda item: item[1])]


def test_spans_equal_the_definition_on_random_brackets() -> None:
    chooser = random.Random(7)
    for _ in range(2000):
        marks = chooser.choices(["(", ")", "[", "]", "a", "b ", ":1.3)", ":0.5)", ":"], k=chooser.randrange(1, 30))
        prompt = "".join(marks)
        ours = [(text, float(f"{weight:.9g}")) for text, weight in pairs(prompt)]
        assert ours == parsed_slowly(prompt), prompt


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_text_is_itself(text: str) -> None:
    escaped = re.sub(r"([()\[\]\\])", r"\\\1", text)
    if "BREAK" not in text and not re.search(r":\s*[+-]?[.\d]+\s*$", text):
        assert parse_a1111(escaped) == parse_plain(text)


@settings(deadline=None)
@given(st.text(alphabet="()[]:\\ 1.aBREAK", max_size=200))
def test_no_text_is_lost_and_nothing_but_a_weight_is_refused(text: str) -> None:
    try:
        spans = parse_a1111(text)
    except PromptError as error:
        assert "weight" in str(error)
        return
    kept = "".join(span.text for span in spans if isinstance(span, Span))
    assert kept.count("a") == text.count("a")


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("(a:1.2.3)", r"1\.2\.3"),
        ("(a:.)", r"no number"),
        (f"(a:{'9' * 400})", "inf"),
        ("(" * 1000 + "a" + ")" * 1000, "at most 10000"),
        ("((a:10000):10000)", "1e\\+08"),
    ],
)
def test_a_weight_that_cannot_be_is_refused(prompt: str, found: str) -> None:
    with pytest.raises(PromptError, match=found) as caught:
        parse_a1111(prompt)
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(
    "piece",
    ["(", ")", "[", "]", "\\", ":", " ", ": ", ":1", ":1 ", "1", ".", "BREAK ", "(a)b ", "(a:1.1)", "([", "\\(", "(:"],
)
@pytest.mark.parametrize("tail", ["", "a" + ")" * 50_000])
def test_parsing_100000_characters_is_linear(piece: str, tail: str) -> None:
    text = piece * ((100_000 - len(tail)) // len(piece)) + tail
    start = time.process_time()
    try:
        parse_a1111(text)
    except PromptError as error:
        assert "weight" in str(error)
    assert time.process_time() - start < 5  # 0.2 s on an idle core; what is quadratic takes minutes


def test_brackets_nested_50000_deep_are_no_recursion() -> None:
    assert parse_a1111("(a [b " + "[" * 50_000 + "c" + "]" * 50_000)[-1] == Span("c", pytest.approx(0.0, abs=1e-300))


def test_the_plain_dialect_takes_every_character() -> None:
    text = r"(a:1.2) [b] \( BREAK"
    assert parse(text, "plain") == [Span(text)]
    assert parse("", "plain") == []
    with pytest.raises(PromptError, match="a1111, comfy, compel, plain"):
        parse(text, "midjourney")  # type: ignore[arg-type]


def text_ids(part: Chunk) -> tuple[int, ...]:
    return part.ids[1 : part.length + 1]


def lengths(prompt: str, tokenizer: Tokenizer) -> list[int]:
    return [each.length for each in chunk(parse(prompt), tokenizer).chunks]


def test_a_chunk_is_75_tokens_between_specials_and_padding(clip: Tokenizer) -> None:
    (part,) = chunk([Span("a photograph of "), Span("an astronaut", 1.5)], clip).chunks
    assert part.ids == (49406, 320, 8853, 539, 550, 18376, *[49407] * 71)
    assert part.weights == (1.0, 1.0, 1.0, 1.0, 1.5, 1.5, *[1.0] * 71)
    assert part.length == 5
    assert [len(each.ids) for each in chunk([Span("a " * 151)], clip).chunks] == [77, 77, 77]
    assert lengths("a " * 75, clip) == [75]
    assert lengths("a " * 151, clip) == [75, 75, 1]


def test_an_empty_prompt_is_one_empty_chunk(clip: Tokenizer) -> None:
    for prompt in ("", "   ", "()"):
        assert chunk(parse(prompt), clip).chunks == (empty_chunk(clip),)
    assert empty_chunk(clip).ids == (49406, *[49407] * 76)


def test_break_fills_up_a_chunk(clip: Tokenizer) -> None:
    assert lengths("a b BREAK c", clip) == [2, 1]
    assert lengths("BREAK a", clip) == [0, 1]
    assert lengths("a BREAK", clip) == [1]
    assert lengths("a BREAK BREAK b", clip) == [1, 0, 1]


def test_a_full_chunk_ends_after_a_comma_among_its_last_20_tokens(clip: Tokenizer) -> None:
    assert lengths("a " * 70 + ", " + "b " * 10, clip) == [71, 10]
    assert lengths("a " * 55 + ", " + "b " * 20, clip) == [56, 20]  # the comma is the 20th from the end
    assert lengths("a " * 54 + ", " + "b " * 21, clip) == [75, 1]  # one too far away
    assert lengths("a " * 54 + ", " + "b " * 20, clip) == [75]  # nothing follows
    assert lengths("a " * 75 + ", b", clip) == [75, 2]  # a comma that does not fit begins the next chunk
    assert lengths("a " * 74 + ", b", clip) == [75, 1]
    assert lengths("a " * 60 + ", b , " + "c " * 20, clip) == [63, 20]  # the last comma counts
    assert lengths("a " * 70 + ", BREAK " + "b " * 76, clip) == [71, 75, 1]  # a comma of another chunk does not


def test_moved_tokens_keep_their_weights(clip: Tokenizer) -> None:
    parts = chunk(parse("a " * 70 + ", (b:1.5) " + "c " * 10), clip).chunks
    assert parts[1].weights[:3] == (1.0, 1.5, 1.0)
    assert set(parts[0].weights) == {1.0}


def test_chunks_together_are_the_whole_prompt(clip: Tokenizer) -> None:
    chooser = random.Random(5)
    for _ in range(50):
        text = "".join(chooser.choices(["cat ", "dog, ", "hippopotamus ", ",", "! "], k=chooser.randrange(400)))
        chunked = chunk(parse(text), clip)
        assert [index for part in chunked.chunks for index in text_ids(part)] == clip.encode(text)
        assert all(part.length <= 75 for part in chunked.chunks)
        assert chunked.cut == ()


def test_what_a_model_cannot_take_is_reported(clip: Tokenizer) -> None:
    told = report("cat " * 75 + "BREAK dog " + "horse " * 80, clip, limit=2)
    assert len(told.chunks) == 2
    assert told.cut == " ".join(["horse"] * 6)
    assert told.cut_tokens == 6
    assert report("cat", clip, limit=1).cut == ""


def test_a_report_names_each_token_its_id_weight_and_chunk(clip: Tokenizer) -> None:
    told = report("a (Horse:1.3) BREAK riding", clip)
    assert told.tokens == ("a</w>", "horse</w>", "riding</w>")
    assert told.ids == (320, 4558, 6765)
    assert told.weights == (1.0, 1.3, 1.0)
    assert told.places == (0, 0, 1)
    assert (told.prompt, told.dialect) == ("a (Horse:1.3) BREAK riding", "a1111")
    assert report("(a)", clip, dialect="plain").tokens == ("(</w>", "a</w>", ")</w>")
