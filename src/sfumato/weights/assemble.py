"""Parts that were trained apart -> one model folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch

from sfumato.errors import ModelFileError
from sfumato.nn.unet import UNet
from sfumato.weights.companion import open_companion
from sfumato.weights.companion_save import carry
from sfumato.weights.component_files import UNET_STEM
from sfumato.weights.load import load, open_model
from sfumato.weights.save import save_folder
from sfumato.weights.writing import folder_written_aside

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}


def assemble(
    folders: Sequence[Path],
    target: Path,
    *,
    title: str,
    size: int,
    steps: int,
    guidance: float,
    dtype: torch.dtype = torch.float16,
    companion: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write parts that lie in `folders` (`unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`) as one model.

    The model is loaded from its parts first, so what does not fit is refused as `load` refuses it. `title`, `size`
    (pixels), `steps` and `guidance` become its defaults; a `preview.json` beside `vae/` gives its preview factors.
    `companion` is a file that was trained beside this model, put together as now but without one.
    Raises ModelFileError where a part is missing, there twice or of another model, OutputError where the target exists.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for part in PARTS:
            if not (folder / part).is_dir():
                continue
            if part in found:
                raise ModelFileError(f"Two folders have a {part}: {found[part].parent} and {folder}; name one of them.")
            found[part] = folder / part
    missing = [part for part in PARTS if part not in found]
    if missing:
        where = ", ".join(str(folder) for folder in folders)
        raise ModelFileError(f"None of {where} has {', '.join(missing)}; a model needs {', '.join(PARTS)}.")
    with TemporaryDirectory() as aside:
        whole = Path(aside) / "model"
        for part, path in found.items():
            shutil.copytree(path, whole / part)
        index = {"_class_name": "StableDiffusionPipeline", **{part: list(names) for part, names in CLASSES.items()}}
        (whole / "model_index.json").write_text(json.dumps(index))
        defaults: dict[str, object] = {"title": title, "size": size, "steps": steps, "guidance": guidance}
        preview = found["vae"].parent / "preview.json"
        if preview.is_file():
            defaults["preview"] = json.loads(preview.read_text())
        (whole / "sfumato.json").write_text(json.dumps(defaults))
        if companion is None:
            return save_folder(load(whole), target, dtype=dtype, overwrite=overwrite)
        made = save_folder(load(whole), Path(aside) / "made", dtype=dtype)
        opened = open_model(made)
        open_companion(companion, cast(UNet, opened.unet.part.network)).check(opened, target.name)
        with folder_written_aside(target, overwrite=overwrite) as folder:
            shutil.copytree(made, folder, dirs_exist_ok=True)
            carry(companion, folder / "unet" / f"{UNET_STEM}.safetensors", folder)
        return target
