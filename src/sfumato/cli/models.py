"""models: what is there, what it is, what it is called, and in which format it lies."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli import merging, registering
from sfumato.cli.options import Voice, between, grouped, number
from sfumato.cli.output import write_document, write_line
from sfumato.cli.progress import note, progress
from sfumato.errors import OutputFormatError
from sfumato.weights.writing import refuse_existing

if TYPE_CHECKING:
    from sfumato.weights.describe import Description
    from sfumato.weights.lora_describe import Group, LoraDescription

app = typer.Typer(help="List, inspect, name and convert models.")
app.registered_commands += registering.app.registered_commands + merging.app.registered_commands

NOT_WRITTEN = (
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".gguf",
    ".onnx",
    ".h5",
    ".msgpack",
    ".zip",
)  # endings of weights elsewhere
STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}  # safetensors' words for what we read and write

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Alias, file, folder or org/name.", show_default=False)]
MaybeName = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="The embedded one by default.", show_default=False)
]


@app.command("list")
@grouped
def list_models(
    voice: Voice,
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="model, vae, lora, embedding, controlnet, upscaler, or all.")
    ] = "model",
) -> None:
    """List what can be named: the embedded model, aliases, other programs' folders, the Hugging Face cache."""
    from sfumato.weights.known import known
    from sfumato.weights.registry import KINDS

    kinds = [each for each in KINDS if kind in (each, f"{each}s", "all")]
    if not kinds:
        raise typer.BadParameter(f"--kind is {kind!r}; it must be one of {', '.join(KINDS)} or all.")
    found = [asdict(each) for each in known(*kinds)]
    if voice.json:
        write_document(found)
        return
    width = max((len(each["name"]) for each in found), default=0)
    for each in found:
        what = f"{each['what']:<10}  " if len(kinds) > 1 else ""
        write_line(f"{each['name']:<{width}}  {what}{each['kind']:<8}  {each['place']}")
    if not found:
        note(
            f"there is no {kind}. `sfumato models add PATH` gives one a name, --from DIR uses another program's folder."
        )


@app.command("show")
@grouped
def show(
    voice: Voice,
    model: MaybeName = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Such as fp16.")] = None,
) -> None:
    """Tell what a model is, from its headers alone: family, prediction, networks, precision, files."""
    from sfumato.weights.describe import describe

    found = describe(model, variant=variant)
    if voice.json:
        write_document(_document(found))
        return
    write_line(f"{found.path}")
    write_line(f"is: {found.what} ({found.reason})")
    if found.lora is not None:
        _tell_lora(found.lora)
    elif found.control is not None:
        option = "--image-prompt" if found.control == "IP-Adapter" else "--control"
        write_line(f"used by: {option}, with a picture")
    elif found.problem is not None:
        write_line(f"cannot draw: {found.problem}")
    else:
        write_line(f"predicts: {found.prediction or 'not told; say --prediction'} ({found.prediction_reason})")
        write_line(
            f"draws: {found.default_size} pixels, {found.default_steps} steps, guidance {found.default_guidance:g}"
        )
    for name, part in found.components.items():
        files = ", ".join(file.name for file in part.files)
        size, precision = f"{part.size / 1e6:.1f} MB", "/".join(part.dtypes)
        write_line(f"{name}: {part.parameters / 1e6:.1f} million parameters, {precision}, {size}, {files}")
    for line in found.notes:
        write_line(f"note: {line}")


def _check_ending(output: Path) -> None:
    """Raise OutputFormatError for a file of weights that is not written; folders may have a point in their names."""
    ending = output.suffix.lower()
    if ending in NOT_WRITTEN or (ending == ".safetensors" != output.suffix):
        raise OutputFormatError(
            f"{output} ends in {output.suffix}, which is not written; name a file that ends in .safetensors, or a new "
            "folder."
        )


@app.command("convert")
@grouped
def convert(
    model: Name,
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="FILE.safetensors, or a new folder.", show_default=False)
    ],
    voice: Voice,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32, float16 or bfloat16; as it is.")] = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Which files of a folder, such as fp16.")] = None,
    prediction: Annotated[
        str | None, typer.Option(metavar="NAME", help="epsilon, v or sample, where the file does not say it.")
    ] = None,
    vae: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Put in another autoencoder.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="The averaged UNet of a single file.")] = False,
    to: Annotated[
        str | None, typer.Option(metavar="DIALECT", help="Of a LoRA: kohya, diffusers or peft.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a model in the other format, a LoRA in another dialect, or any other file as safetensors.

    A model: a diffusers folder, or one .safetensors file with the original names; without an averaged copy (EMA).
    """
    _check_ending(output)
    refuse_existing(output, overwrite=overwrite)
    if to is not None:
        _convert_lora(model, output, to, dtype, voice=voice, overwrite=overwrite)
        return
    from sfumato.devices import named_dtype
    from sfumato.weights.describe import describe
    from sfumato.weights.load import load
    from sfumato.weights.save import save_file, save_folder

    found = describe(model, variant=variant)
    if "file" in found.components:  # no model: a LoRA, an autoencoder, an embedding, ...
        from sfumato.weights.rewrite import rewrite

        written = rewrite(found.path, output, dtype=None if dtype is None else named_dtype(dtype), overwrite=overwrite)
        if voice.json:
            write_document({"path": str(written), "family": None, "notes": [found.what]})
        else:
            write_line(written)
        return
    if dtype is None:  # as it is, and not as it would be computed
        dtype = STORED.get(found.components["unet"].dtypes[0]) if "unet" in found.components else None
    precision = None if dtype is None else named_dtype(dtype)
    with progress() as bar:
        bar(f"reading {model}")
        loaded = load(model, variant=variant, prediction=prediction, vae=vae, ema=ema, dtype=precision)
        bar(f"writing {output}")
        write = save_file if output.suffix == ".safetensors" else save_folder
        written = write(loaded, output, dtype=precision, overwrite=overwrite)
    if voice.json:
        write_document({"path": str(written), "family": loaded.family.name, "notes": list(loaded.notes)})
    else:
        write_line(written)


def _convert_lora(name: str, output: Path, to: str, dtype: str | None, *, voice: Voice, overwrite: bool) -> None:
    from sfumato.devices import named_dtype
    from sfumato.weights.lora import locate_lora
    from sfumato.weights.lora_save import WRITTEN, convert_lora

    dialect = next((each for each in WRITTEN if each == to), None)
    if dialect is None:
        raise typer.BadParameter(f"--to is {to!r}; a LoRA is written as {', '.join(WRITTEN)}.")
    precision = None if dtype is None else named_dtype(dtype)
    written = convert_lora(locate_lora(name), output, dialect, dtype=precision, overwrite=overwrite)
    if voice.json:
        write_document({"path": str(written), "dialect": dialect})
    else:
        write_line(written)


@app.command("assemble")
@grouped
def assemble(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Where the trained parts lie.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="The model's folder.", show_default=False)
    ],
    voice: Voice,
    title: Annotated[str, typer.Option(metavar="TEXT", help="What it is.")] = "a trained model",
    size: Annotated[int, typer.Option(parser=between(16, 8192), metavar="PIXELS", help="Its default size.")] = 128,
    steps: Annotated[int, typer.Option(parser=between(1, 1000), metavar="N", help="Its default steps.")] = 30,
    guidance: Annotated[float, typer.Option(parser=number, metavar="G", help="Its default guidance.")] = 7.5,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, float16 or bfloat16.")] = "float16",
    companion: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trained beside this model: makes it see masks.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Put parts that were trained apart together as one model.

    The folders are the export folders of training runs: unet, vae, text_encoder, tokenizer and scheduler.
    """
    refuse_existing(output, overwrite=overwrite)
    from sfumato.devices import named_dtype
    from sfumato.weights.assemble import assemble as put_together

    written = put_together(
        folders,
        output,
        title=title,
        size=size,
        steps=steps,
        guidance=guidance,
        dtype=named_dtype(dtype),
        companion=companion,
        overwrite=overwrite,
    )
    if voice.json:
        write_document({"path": str(written)})
    else:
        write_line(written)


def _tell_lora(lora: "LoraDescription") -> None:
    write_line(f"dialect: {lora.dialect}")
    for network, groups in lora.networks.items():
        told = ", ".join(_group(each) for each in groups)
        write_line(f"{network}: {sum(each.layers for each in groups)} layers: {told}")
    if lora.unmatched:
        write_line(f"note: {lora.unmatched} tensors are no layer's")


def _group(group: "Group") -> str:
    kind = "" if group.kind == "LoRA" else f"{group.kind} "
    ranked = f"{kind}of rank {group.rank} and alpha {group.alpha:g}"
    return f"{group.layers} {ranked if group.rank else group.kind}"


def _document(found: "Description") -> dict[str, Any]:
    """A description as JSON values."""
    document = asdict(found)
    document["path"] = str(found.path)
    for part in document["components"].values():
        part["files"] = [str(file) for file in part["files"]]
    return document
