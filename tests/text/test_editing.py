"""Prompts that change during a run, against the examples that stable-diffusion-webui documents, and their growth."""

import random
from itertools import pairwise

import pytest
from text_growth import lines_run

from sfumato.text.editing import stretches


def course(text: str, steps: int = 10) -> list[list[object]]:
    return [[each.until, each.text] for each in stretches(text, steps)]


# Published with stable-diffusion-webui's own parser (the examples of get_learned_conditioning_prompt_schedules);
# there, neighbours may be alike.
DOCUMENTED = {
    "test": [[10, "test"]],
    "a [b:3]": [[3, "a "], [10, "a b"]],
    "a [b: 3]": [[3, "a "], [10, "a b"]],
    "a [[[b]]:2]": [[2, "a "], [10, "a [[b]]"]],
    "[(a:2):3]": [[3, ""], [10, "(a:2)"]],
    "a [b : c : 1] d": [[1, "a b  d"], [10, "a  c  d"]],
    "a[b:[c:d:2]:1]e": [[1, "abe"], [2, "ace"], [10, "ade"]],
    "a [unbalanced": [[10, "a [unbalanced"]],
    "a [b:.5] c": [[5, "a  c"], [10, "a b c"]],
    "a [{b|d{:.5] c": [[5, "a  c"], [10, "a {b|d{ c"]],
    "((a][:b:c [d:3]": [[3, "((a][:b:c "], [10, "((a][:b:c d"]],
    "[a|(b:1.1)]": [[step, "a" if step % 2 else "(b:1.1)"] for step in range(1, 11)],
    "[fe|]male": [[step, "female" if step % 2 else "male"] for step in range(1, 11)],
}


@pytest.mark.parametrize("text", DOCUMENTED)
def test_the_examples_of_stable_diffusion_webui(text: str) -> None:
    assert course(text) == DOCUMENTED[text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [b:.5] c", [[10, "a b c"]]),  # the webui's examples of a second pass of 10 steps after a first of 10
        ("a [b:1.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("[a:b:1.0]", [[10, "b"]]),
        ("[a:b:2.0]", [[10, "a"]]),
        ("[a:b:10]", [[10, "b"]]),
        ("[a:b:13]", [[3, "a"], [10, "b"]]),
        ("[a|b]", [[step, "a" if step % 2 else "b"] for step in range(1, 11)]),
    ],
)
def test_the_numbers_go_on_in_a_second_pass(text: str, expected: list[list[object]]) -> None:
    assert [[each.until, each.text] for each in stretches(text, 10, 10)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[fe|||]male", [[1, "female"], [4, "male"], [5, "female"], [8, "male"], [9, "female"], [10, "male"]]),
        ("[a::0.3]b", [[3, "ab"], [10, "b"]]),
        ("[a::12]b", [[10, "ab"]]),  # later than the run
        ("[a:b:0]", [[10, "b"]]),
        ("[a:b:-1]", [[10, "b"]]),
        ("[a:b:1.0]", [[10, "a"]]),  # with a point it is a share: all of the steps
        ("[a:b:1]", [[1, "a"], [10, "b"]]),  # without, a number of them
        ("[a:b:5e-1]", [[10, "b"]]),  # no point, so 0.5 of a step
        ("[a:b:c:3]", [[10, "[a:b:c:3]"]]),
        ("[a:b]", [[10, "[a:b]"]]),
        ("[a]", [[10, "[a]"]]),
        (r"\[a:b:3]", [[10, r"\[a:b:3]"]]),
        (r"[a\:x:b:3]", [[3, r"a\:x"], [10, "b"]]),
        ("[(a:b):c:3]", [[3, "(a:b)"], [10, "c"]]),
        ("[a(:b:3]", [[10, "[a(:b:3]"]]),
        ("[a):b:3]", [[10, "[a):b:3]"]]),
        ("[:3]", [[10, ""]]),
        ("a [b|[c:d:0.5]]", [[1, "a b"], [2, "a c"], [3, "a b"], [4, "a c"], [5, "a b"], [6, "a d"], [7, "a b"],
                             [8, "a d"], [9, "a b"], [10, "a d"]]),
    ],
)  # fmt: skip
def test_shares_counts_and_what_is_nothing_of_the_kind(text: str, expected: list[list[object]]) -> None:
    assert course(text) == expected


def test_the_example_of_the_documentation_with_100_steps() -> None:
    prompt = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
        "[ in background:0.25] [shoddy:masterful:0.5]"
    )
    assert course(prompt, 100) == [
        [25, "fantasy landscape with a mountain and an oak in foreground shoddy"],
        [50, "fantasy landscape with a lake and an oak in foreground in background shoddy"],
        [60, "fantasy landscape with a lake and an oak in foreground in background masterful"],
        [75, "fantasy landscape with a lake and an oak in background masterful"],
        [100, "fantasy landscape with a lake and a christmas tree in background masterful"],
    ]


def test_a_course_covers_the_run_and_neighbours_differ() -> None:
    chooser = random.Random(1)
    for _ in range(500):
        text = "".join(
            chooser.choices(["[", "]", "(", ")", ":", "|", "a", "b ", "3", "0.5"], k=chooser.randrange(1, 25))
        )
        steps = chooser.randrange(1, 9)
        found = stretches(text, steps)
        untils = [each.until for each in found]
        assert untils == sorted(set(untils))
        assert untils[-1] == steps
        assert all(one.text != other.text for one, other in pairwise(found))


@pytest.mark.parametrize("piece", ["[", "]", "[a:b:3]", "[a|b]", "[a:", "[|", "(", "\\", ":", "[[a:2]:b:3] ", "[a:b:3"])
@pytest.mark.parametrize("tail", ["", "]", ":3]"])
def test_work_grows_as_the_prompt(piece: str, tail: str) -> None:
    short, long = (lines_run(lambda text: stretches(text, 4), piece * count + tail * count) for count in (300, 3000))
    assert long <= 11 * short


def test_brackets_nested_30000_deep_are_no_recursion() -> None:
    text = "[" * 30_000 + "a" + ":b:2]" * 30_000
    assert course(text, 4) == [[2, "a"], [4, "b"]]
