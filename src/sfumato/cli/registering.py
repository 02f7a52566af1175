"""models add and remove: names for what is on this machine, other programs' folders, and downloads."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.options import Voice, grouped
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import Bar, note, progress
from sfumato.errors import ModelNotFoundError, OutputError

if TYPE_CHECKING:
    from sfumato.weights.hub import Told
    from sfumato.weights.registry import Folder, Kind

app = typer.Typer()

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME] PATH|ORG/NAME", help="Where it is; before it, what to call it.", show_default=False),
]


@app.command("add")
@grouped
def add(
    voice: Voice,
    words: Words = None,
    folder: Annotated[
        str | None,
        typer.Option("--from", metavar="DIR", help="Use the models of A1111, Forge or ComfyUI where they are."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="model, vae, lora, embedding, ...; told from the file otherwise.")
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(metavar="NAME", help="epsilon, v or sample, where the file does not say it.")
    ] = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="What to download, such as fp16.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take the name from another model.")] = False,
) -> None:
    """Give a model, VAE, LoRA, embedding, ControlNet or upscaler a name.

    What is not on this machine and looks like org/name is downloaded into the Hugging Face cache.
    """
    if (folder is None) == (not words) or len(words or ()) > 2:
        raise typer.BadParameter("give one path or org/name, perhaps a name before it; or --from and a folder.")
    if folder is not None:
        _adopt(folder, voice)
        return
    assert words
    place = words[-1]
    path = _found(place, variant)
    told, reason = _kind(kind, path)
    if prediction is not None:
        from sfumato.weights.opened import spelled_prediction

        prediction = spelled_prediction(prediction, "--prediction")
    name = words[0] if len(words) == 2 else _name(place)
    from sfumato.weights.locate import add_alias, aliases

    kept = place if _is_repository(place) and place.count("/") == 1 else path
    add_alias(name, kept, kind=told, prediction=prediction, overwrite=overwrite)
    if voice.json:
        write_document({"name": name, "place": aliases()[name], "what": told, "why": reason})
        return
    note(f"{name} is a {told}: {reason}")
    write_line(aliases()[name])


def _adopt(place: str, voice: Voice) -> None:
    from sfumato.weights.adopted import entries
    from sfumato.weights.locate import add_folder

    folder: Folder = add_folder(place)
    counts = {kind: sum(1 for _ in entries((folder,), kind)) for kind in folder.kinds}
    if voice.json:
        write_document({"folder": str(folder.root), "layout": folder.layout, "found": counts})
        return
    for kind, count in counts.items():
        where = ", ".join(str(each) for each in folder.kinds[kind])
        write_line(f"{kind}: {count} in {where}")


def _found(place: str, variant: str | None) -> Path:
    """Return where a place is, downloaded if it is a repository that is not there."""
    from sfumato.weights.locate import locate

    try:
        return locate(place)
    except ModelNotFoundError:
        if not _is_repository(place):
            raise
    from sfumato.weights.hub import download

    with progress() as bar:
        return download(place, variant=variant, told=_megabytes(bar))


def _megabytes(bar: Bar) -> "Told":
    def told(name: str, done: float, total: float) -> None:
        bar(f"downloading {name} (MB)", round(done / 1e6), round(total / 1e6))

    return told


def _is_repository(place: str) -> bool:
    return (
        re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?(/.+)?", place) is not None and not Path(place).expanduser().exists()
    )


def _kind(stated: str | None, path: Path) -> "tuple[Kind, str]":
    from sfumato.weights.registry import KINDS

    if stated is None:
        from sfumato.weights.kinds import kind_of

        return kind_of(path)
    for kind in KINDS:
        if stated == kind:
            return kind, "as was said"
    raise typer.BadParameter(f"--kind is {stated!r}; it must be one of {', '.join(KINDS)}.")


def _name(place: str) -> str:
    """Return a name for what nobody gave one: the file's without its suffix, or the repository's."""
    path = Path(place.partition("@")[0])
    name = path.stem if path.suffix.lower() in (".safetensors", ".ckpt", ".pt", ".pth", ".bin") else path.name
    if not name:
        raise OutputError(f"{place} gives no name; say one: `sfumato models add NAME {place}`.")
    return name


@app.command("remove")
@grouped
def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A name or a folder that was added.", show_default=False)
    ],
    voice: Voice,
) -> None:
    """Forget a name or a folder; what lies there stays."""
    from sfumato.weights.locate import remove_alias

    remove_alias(name)
    if voice.json:
        write_document({"removed": name})
