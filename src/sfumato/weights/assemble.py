"""Parts that were trained apart -> one model folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sfumato.errors import ModelFileError
from sfumato.weights.load import load
from sfumato.weights.save import save_folder

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
    overwrite: bool = False,
) -> Path:
    """Write parts that lie in `folders` (`unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`) as one model.

    The model is loaded from its parts first, so what does not fit is refused as `load` refuses it. `title`, `size`
    (pixels), `steps` and `guidance` become its defaults; a `preview.json` beside `vae/` gives its preview factors.
    Raises ModelFileError where a part is missing or there twice, OutputError where the target exists.
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
        return save_folder(load(whole), target, dtype=dtype, overwrite=overwrite)
