"""What a picture says about how it was made, whoever wrote it: one description for every tool's dialect."""

import io
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

from sfumato.errors import PictureError, SfumatoError, reason
from sfumato.metadata.comfyui import describe_graph
from sfumato.metadata.containers import CHUNK, PARAMETERS, read_texts
from sfumato.metadata.infotext import parse_infotext
from sfumato.request import Request

Settings = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Description:
    """What a picture's metadata says. `tool` is who wrote it, or "" when there is none.

    `settings` has sfumato's names for what has one (steps, guidance, seed, sampler, width, height, strength, model) and
    the tool's own names for the rest. `request` and `record` are there when sfumato wrote it.
    """

    tool: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    settings: Settings = field(default_factory=dict)
    request: Request | None = None
    record: Mapping[str, Any] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


def describe(picture: str | os.PathLike[str] | bytes | Image.Image) -> Description:
    """What the metadata of a picture (a path, a file's bytes or an open picture) says.

    Raises PictureError if the file is no picture, or its metadata is damaged.
    """
    if isinstance(picture, Image.Image):
        return describe_texts(read_texts(picture))
    name = "the picture" if isinstance(picture, bytes) else os.fspath(picture)
    try:
        source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
        with Image.open(source, formats=("PNG", "JPEG", "WEBP")) as opened:
            return describe_texts(read_texts(opened))
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a PNG, JPEG or WebP picture") from error
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise PictureError(f"{name} cannot be read: {reason(error)}") from error


def describe_texts(texts: Mapping[str, str]) -> Description:
    """The description of named texts. The first dialect that recognises its own is taken, the most telling first."""
    for key, tool, read in _DIALECTS:
        if key not in texts:
            continue
        try:
            found = read(texts)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SfumatoError) as error:
            raise PictureError(f"the picture's {key!r} looks like {tool}'s but cannot be read: {error}") from error
        if found is not None:
            return found
    return Description(texts=texts)


def _sfumato(texts: Mapping[str, str]) -> Description | None:
    record = json.loads(texts[CHUNK])
    request = Request.from_dict(record["request"])
    settings = {
        key: value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        for key, value in request.to_dict().items()
    }
    settings["seed"] = record["seed"]
    if "words" in record:  # what wildcards, styles and the like made of the prompt
        settings["words"] = json.dumps(record["words"], ensure_ascii=False)
    if request.loras:
        settings["loras"] = ", ".join(map(str, request.loras))
    if request.embeddings:
        settings["embeddings"] = ", ".join(map(str, request.embeddings))
    prompt = request.prompts[record["index"] // request.count]
    for name in ("prompt", "negative_prompt"):
        settings.pop(name, None)
    return Description("sfumato", prompt, request.negative_prompt, settings, request, record, texts)


_A1111_NAMES = {
    "Steps": "steps",
    "CFG scale": "guidance",
    "Seed": "seed",
    "Sampler": "sampler",
    "Schedule type": "spacing",
    "Denoising strength": "strength",
    "Mask blur": "mask_blur",
    "Model": "model",
    "VAE": "vae",
}


def _a1111(texts: Mapping[str, str]) -> Description | None:
    if texts[PARAMETERS].lstrip().startswith("{"):
        return _json_parameters(texts)
    info = parse_infotext(texts[PARAMETERS])
    settings: dict[str, str | int | float] = {}
    for key, value in info.parameters.items():
        settings[_A1111_NAMES.get(key, key)] = _number(value)
    width, x, height = str(settings.get("Size", "")).partition("x")
    if x and width.isdecimal() and height.isdecimal():
        settings |= {"width": int(width), "height": int(height)}
        del settings["Size"]
    version = str(settings.get("Version", ""))
    tool = "sfumato" if version.startswith("sfumato") else "AUTOMATIC1111"
    return Description(tool, info.prompt, info.negative_prompt, settings, texts=texts)


def _json_parameters(texts: Mapping[str, str]) -> Description:
    """SwarmUI and Fooocus keep JSON where A1111 keeps its text."""
    values = json.loads(texts[PARAMETERS])
    tool = "SwarmUI" if "sui_image_params" in values else "Fooocus"
    values = values.get("sui_image_params", values)
    names = {"cfgscale": "guidance", "guidance_scale": "guidance", "base_model": "model"}
    settings = _plain(values, names)
    prompt = settings.pop("prompt", "")
    negative = settings.pop("negativeprompt", settings.pop("negative_prompt", ""))
    return Description(tool, str(prompt), str(negative), settings, texts=texts)


def _comfyui(texts: Mapping[str, str]) -> Description | None:
    if not texts["prompt"].lstrip().startswith("{"):
        return None
    prompt, negative, settings = describe_graph(json.loads(texts["prompt"]))
    return Description("ComfyUI", prompt, negative, settings, texts=texts)


def _comfyui_workflow(texts: Mapping[str, str]) -> Description | None:
    return Description("ComfyUI", settings={"workflow": "only the editor's form"}, texts=texts)


def _invokeai(texts: Mapping[str, str]) -> Description | None:
    values = json.loads(texts["invokeai_metadata"])
    names = {"cfg_scale": "guidance", "cfg_rescale_multiplier": "guidance_rescale", "scheduler": "sampler"}
    settings = _plain(values, names)
    if isinstance(values.get("model"), dict):
        settings["model"] = str(values["model"].get("name", ""))
    prompt, negative = settings.pop("positive_prompt", ""), settings.pop("negative_prompt", "")
    return Description("InvokeAI", str(prompt or ""), str(negative or ""), settings, texts=texts)


def _invokeai_2(texts: Mapping[str, str]) -> Description | None:
    values = json.loads(texts["sd-metadata"])["image"]
    prompt = values.get("prompt", "")
    if isinstance(prompt, list):
        prompt = ", ".join(part["prompt"] for part in prompt)
    settings = _plain(values, {"cfg_scale": "guidance"})
    settings.pop("prompt", None)
    return Description("InvokeAI", prompt, "", settings, texts=texts)


_DREAM_FLAGS = {
    "-s": "steps",
    "-S": "seed",
    "-W": "width",
    "-H": "height",
    "-C": "guidance",
    "-A": "sampler",
    "-f": "strength",
}


def _dream(texts: Mapping[str, str]) -> Description | None:
    """InvokeAI's first form: the command line that was typed."""
    words = shlex.split(texts["Dream"])
    settings = {
        name: _number(words[words.index(flag) + 1]) for flag, name in _DREAM_FLAGS.items() if flag in words[1:-1]
    }
    return Description("InvokeAI", words[0] if words else "", "", settings, texts=texts)


def _novelai(texts: Mapping[str, str]) -> Description | None:
    if "NovelAI" not in texts.get("Software", ""):
        return None
    values = json.loads(texts["Comment"])
    settings = _plain(values, {"scale": "guidance"})
    prompt, negative = settings.pop("prompt", texts.get("Description", "")), settings.pop("uc", "")
    return Description("NovelAI", str(prompt), str(negative), settings, texts=texts)


def _easy_diffusion(texts: Mapping[str, str]) -> Description | None:
    if "use_stable_diffusion_model" not in texts:
        return None
    names = {
        "guidance_scale": "guidance",
        "num_inference_steps": "steps",
        "sampler_name": "sampler",
        "prompt_strength": "strength",
        "use_stable_diffusion_model": "model",
    }
    settings = {names.get(key, key): _number(value) for key, value in texts.items()}
    prompt, negative = settings.pop("prompt", ""), settings.pop("negative_prompt", "")
    return Description("Easy Diffusion", str(prompt), str(negative), settings, texts=texts)


def _plain(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str | int | float | bool | None]:
    """The entries that are no objects, under our names."""
    return {names.get(key, key): value for key, value in values.items() if isinstance(value, str | int | float | bool)}


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_DIALECTS: tuple[tuple[str, str, Callable[[Mapping[str, str]], Description | None]], ...] = (
    (CHUNK, "sfumato", _sfumato),
    ("invokeai_metadata", "InvokeAI", _invokeai),
    ("sd-metadata", "InvokeAI", _invokeai_2),
    ("Dream", "InvokeAI", _dream),
    ("Comment", "NovelAI", _novelai),
    (PARAMETERS, "AUTOMATIC1111", _a1111),
    ("prompt", "Easy Diffusion", _easy_diffusion),
    ("prompt", "ComfyUI", _comfyui),
    ("workflow", "ComfyUI", _comfyui_workflow),
)
