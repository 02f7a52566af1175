"""scenes: the drawn world as pictures, as captions, and its words."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.options import Voice, between, grouped
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import progress
from sfumato.errors import OutputError

if TYPE_CHECKING:
    from sfumato.scenes.captions import Caption
    from sfumato.scenes.scene import Scene

app = typer.Typer(help="The drawn world as pictures and captions.")
CHUNK = 64  # pictures rendered together


class Split(StrEnum):
    """Which scenes: those that are trained on, or those that never are."""

    train = "train"
    held_out = "held_out"
    unseen_pairs = "unseen_pairs"


Count = Annotated[int, typer.Option(parser=between(1, 10**7), metavar="N", help="How many scenes.")]
First = Annotated[
    int, typer.Option(parser=between(0, 2**63), metavar="N", help="The number of the first scene in the sequence.")
]
Seed = Annotated[int, typer.Option(parser=between(0, 2**63), metavar="N", help="Names an endless sequence of scenes.")]
Things = Annotated[int, typer.Option(parser=between(1, 9), metavar="N", help="Things in a scene.")]
Which = Annotated[Split, typer.Option(help="Scenes that models are trained on, or not.")]


@app.command("render")
@grouped
def render(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.", show_default=False)],
    voice: Voice,
    count: Count = 16,
    size: Annotated[int, typer.Option(parser=between(16, 1024), metavar="PIXELS", help="Width and height.")] = 128,
    seed: Seed = 0,
    first: First = 0,
    things: Things = 1,
    split: Which = Split.train,
) -> None:
    """Draw scenes into a folder as a dataset: pictures, and their captions in metadata.jsonl."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not an empty folder. Name a new one; nothing is overwritten.")
    from sfumato.images import to_levels, to_pictures
    from sfumato.scenes.render import render as render_scenes

    numbers = range(first, first + count)
    folder.mkdir(parents=True, exist_ok=True)
    with progress() as bar, open(folder / "metadata.jsonl", "x", encoding="utf-8") as lines:
        for start in range(0, count, CHUNK):
            described = _described(seed, numbers[start : start + CHUNK], things, split)
            pictures = to_pictures(to_levels(render_scenes([scene for scene, _ in described], size)))
            for number, picture, (_, text) in zip(numbers[start : start + CHUNK], pictures, described, strict=True):
                name = f"{number:08d}.png"
                picture.save(folder / name)
                lines.write(json.dumps({"file_name": name, "text": text.text}, ensure_ascii=False) + "\n")
                if not voice.json:
                    write_line(folder / name)
            bar("drawing scenes", min(start + CHUNK, count), count)
    if voice.json:
        write_document({"folder": str(folder), "pictures": count, "captions": str(folder / "metadata.jsonl")})


@app.command("caption")
@grouped
def caption(
    voice: Voice, count: Count = 8, seed: Seed = 0, first: First = 0, things: Things = 1, split: Which = Split.train
) -> None:
    """Print captions of scenes, one a line; with --json also what each of them claims."""
    from dataclasses import asdict

    captions = [text for _, text in _described(seed, range(first, first + count), things, split)]
    if voice.json:
        write_document([asdict(text) for text in captions])
        return
    for text in captions:
        write_line(text.text)


@app.command("vocabulary")
@grouped
def vocabulary(voice: Voice) -> None:
    """Print the words that the drawn world knows."""
    from sfumato.scenes import vocabulary as words

    table = {
        "things": [name for names in words.KINDS.values() for name in names],
        "colours": list(words.COLOURS),
        "sizes": [name for names in words.SIZE_WORDS.values() for name in names],
        "places": [name for names in words.PLACES.values() for name in names],
        "relations": [name for names in words.RELATIONS.values() for name in names],
        "backgrounds": [name for each in words.BACKGROUNDS.values() for name in each.phrases],
        "styles": [name for names in words.STYLES.values() for name in names],
    }
    if voice.json:
        write_document(table)
        return
    for name, known in table.items():
        write_line(f"{name}: {', '.join(known)}")


def _described(seed: int, numbers: Sequence[int], things: int, split: Split) -> "list[tuple[Scene, Caption]]":
    """Scenes of the sequence `seed` by their numbers, with a caption of each; the same ones every time."""
    import numpy as np

    from sfumato.scenes.captions import caption as describe
    from sfumato.scenes.scene import scene

    counts = (0.0,) * (things - 1) + (1.0,)
    drawn = [scene(seed, number, split.value, counts) for number in numbers]
    return [
        (one, describe(one, np.random.default_rng([seed, number]))) for one, number in zip(drawn, numbers, strict=True)
    ]
