"""compel's dialect against compel itself: its parser on awkward prompts, and its embeddings with a tiny encoder."""

import contextlib
import random
import time
import warnings
from pathlib import Path

import pytest
import torch
from text_growth import lines_run
from text_towers import Tower, make_towers

from sfumato.errors import PromptError
from sfumato.text.encode import SD1, SDXL, TextRules, TextStack
from sfumato.text.prompt import mixture, parse
from sfumato.text.spans import Span
from sfumato.text.tokenizer import Tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from compel import Compel, ReturnedEmbeddingsType
    from compel.prompt_parser import FlattenedPrompt, PromptParser

PROMPTS = [
    "a big red+ dog",
    "a (big red)1.3 dog--",
    "a ((big)+ red)- dog",
    '"a tall man"++ b',
    "a dog+, cat. x",
    "(a b)",
    "mid-air scene",
    "a (b",
    "c++ language",
    r"a\+ b",
    "(a b) c",
    "well-known+ x",
    "3.5 + 4",
    "a+b",
    "(a)1.3b",
    "a (b))",
    "--",
    "(a,b)1.2,c",
    "x.attend(1.2)",
    "(a b).attend(++)",
    r"a \(b\)",
    "(a) 1.3",
    "(a)-0.5",
    "hello!+",
    "a.b+ c",
    '"a (b)+ c"- d',
    "((a)1.5)0.5",
    "(a  b\n c)+  d",
    "a (b:1.3)",
    "x(a)+ b",
]


def joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Without white space, which is nothing to the tokenizer beside punctuation."""
    return [("".join(text.split()), round(weight, 9)) for text, weight in pieces if text.strip()]


def ours(text: str) -> list[tuple[str, float]]:
    return joined([(span.text, span.weight) for span in parse(text, "compel") if isinstance(span, Span)])


def theirs(text: str) -> list[tuple[str, float]]:
    (prompt,) = PromptParser().parse_conjunction(text).prompts
    assert isinstance(prompt, FlattenedPrompt)
    return joined([(fragment.text, fragment.weight) for fragment in prompt.children])


@pytest.mark.parametrize("text", PROMPTS)
def test_fragments_and_weights_are_compels(text: str) -> None:
    assert ours(text) == theirs(text)


def test_random_prompts_are_read_as_compel_reads_them() -> None:
    chooser = random.Random(2)
    words = ["a ", "dog+ ", "cat-- ", "(red fox)1.2 ", "(a (b)+ c)- ", '"x y"+ ', "tail, ", "end. ", "mid-air "]
    for _ in range(200):
        text = "".join(chooser.choices(words, k=chooser.randrange(1, 8)))
        assert ours(text) == theirs(text), text


@pytest.fixture(scope="module")
def towers(clip: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tower]:
    return make_towers(clip, lambda name: Path(tmp_path_factory.mktemp(name)))


KINDS = {
    "vit_l": (SD1, "LAST_HIDDEN_STATES_NORMALIZED"),
    "bigg": (SDXL, "PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED"),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "a red dog",
        "a red++ dog",
        "a red-- dog",
        "a (red)0.5 dog and (a cat)0.25 on+ grass",
        "a (red)0 dog",
        "(a red dog)0.4",
        '("a red dog", "a blue cat+").blend(0.7, 0.3)',
        '("a red dog", "a blue cat").blend(1, 1, no_normalize)',
        '("a red dog", "a blue cat-").and()',
        '("a red dog", "a blue cat").and(1, 0.5)',
        "dog. " * 40 + "a cat- " * 30,
        "",
    ],
)
def test_what_is_encoded_equals_compel(towers: dict[str, Tower], kind: str, text: str) -> None:
    tower, (rules, returned) = towers[kind], KINDS[kind]
    reference = Compel(
        tokenizer=tower.reference_tokenizer,
        text_encoder=tower.reference,
        truncate_long_prompts=False,
        returned_embeddings_type=ReturnedEmbeddingsType[returned],
    )
    expected = reference(text)
    alone = TextRules(skip=rules.skip, final_norm=rules.final_norm)
    found = TextStack((tower.tokenizer,), (tower.encoder,), alone).encode(text, dialect="compel").context
    assert found.shape == expected.shape
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5
    if "+" in text or "-" in text:
        flat = TextStack((tower.tokenizer,), (tower.encoder,), alone).encode(text, dialect="plain").context
        assert flat.shape != found.shape or not torch.allclose(found, flat)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(a).swap(b)", "swap"),
        ("withLora(x, 1) a", "withLora"),
        ('("a", "b").blend(1)', "2 parts"),
        ('("a", "b").blend(1, x)', "a number for each"),
        ('("a", "b").blend(1, -1)', "add up to 0"),
        ("a" + "+" * 5000, "at most 10000"),
        ("(a)" + "9" * 400, "inf"),
    ],
)
def test_what_cannot_be_is_told(text: str, told: str) -> None:
    with pytest.raises(PromptError, match=told):
        mixture(text, "compel")


@pytest.mark.parametrize("piece", ["(", ")", '"', "a+ ", "(a)1.2 ", "+", "a+b-", "(a (b)+ ", "\\(", ".", "a.b+"])
@pytest.mark.parametrize("tail", ["", ")", ")+"])
def test_work_grows_as_the_prompt(piece: str, tail: str) -> None:
    short, long = (
        lines_run(lambda text: mixture(text, "compel"), piece * count + tail * count) for count in (400, 4000)
    )
    assert long <= 11 * short


@pytest.mark.parametrize("piece", ["(", '"', "+", "a+b-", "a-", "\\(", "a.b+"])
def test_100000_characters_take_no_time(piece: str) -> None:
    start = time.process_time()
    with contextlib.suppress(PromptError):
        mixture(piece * (100_000 // len(piece)), "compel")
    assert time.process_time() - start < 5  # 0.2 s on an idle core; what goes back over the text takes minutes
