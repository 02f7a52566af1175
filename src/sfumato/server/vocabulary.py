"""The words of the drawn world, for those who write prompts for the embedded model."""

from sfumato.scenes import vocabulary as words
from sfumato.server.values import Value

EXAMPLES = (
    "a red house on green grass",
    "a painting of a blue boat on the sea",
    "a cartoon of a yellow star at the top at night",
    "a paper cut of a large white flower in the desert",
    "a small purple fish below a green boat on the sea",
    "a large orange ball to the left of a black tree in the snow",
    "a red heart in the middle at sunset",
    "a yellow moon above a white house in winter",
)


class Vocabulary(Value):
    """What can be said to the embedded model, and sentences that it draws well."""

    objects: list[str]
    colours: list[str]
    sizes: list[str]
    places: list[str]
    relations: list[str]
    backgrounds: list[str]
    styles: list[str]
    examples: list[str]


def vocabulary() -> Vocabulary:
    """The words, the most usual of each first."""
    return Vocabulary(
        objects=[noun for nouns in words.KINDS.values() for noun in nouns],
        colours=list(words.COLOURS),
        sizes=[word for forms in words.SIZE_WORDS.values() for word in forms],
        places=[phrase for phrases in words.PLACES.values() for phrase in phrases],
        relations=[phrase for phrases in words.RELATIONS.values() for phrase in phrases],
        backgrounds=[phrase for each in words.BACKGROUNDS.values() for phrase in each.phrases],
        styles=[phrase for phrases in words.STYLES.values() for phrase in phrases],
        examples=list(EXAMPLES),
    )
