"""The words of the drawn world: those of its captions, and no others."""

import re

import numpy as np
import pytest

from sfumato.scenes.captions import caption
from sfumato.scenes.familiar import FAMILIAR, unseen_words
from sfumato.scenes.scene import scene


def test_every_caption_is_of_familiar_words_and_every_familiar_word_is_in_one() -> None:
    said: set[str] = set()
    for number in range(6000):
        one = scene(0, number, "train", (0.5, 0.5))
        text = caption(one, np.random.default_rng([0, number]), natural=0.6).text
        assert unseen_words(text) == (), text
        said.update(re.findall("[a-z]+", text.lower()))
    assert FAMILIAR - said <= {"huts"}  # two of a kind are rare


@pytest.mark.parametrize(
    ("text", "unseen"),
    [
        ("a purple elephant", ("elephant",)),
        ("(a red:1.3) Tree, 8k, trending", ("k", "trending")),
        ("an outline drawing of a boat at sunset", ()),
        ("der Baum und der Baum", ("der", "baum", "und")),
    ],
)
def test_what_no_caption_says_is_told(text: str, unseen: tuple[str, ...]) -> None:
    assert unseen_words(text) == unseen
