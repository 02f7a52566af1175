"""What spandrel makes of upscalers' files: `python spandrel_upscalers.py OUTPUT.safetensors INPUT.safetensors FILE...`.

The input holds `pixels` [B, 3, H, W]; the output one tensor and one scale for each file. spandrel imports torchvision
for two networks that are not asked for here; a stand-in for it lets the others load where torchvision does not run.
"""

import sys
import types
from pathlib import Path

for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
    sys.modules[name] = types.ModuleType(name)
functional = sys.modules["torchvision.transforms.functional"]
functional.InterpolationMode = functional.rotate = functional.normalize = None  # type: ignore[attr-defined]

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from spandrel import ModelLoader  # noqa: E402


def main(output: str, pixels: str, files: list[str]) -> None:
    """Write the answer of each file's network, and its scale."""
    given = load_file(pixels)["pixels"]
    made = {}
    for file in files:
        network = ModelLoader().load_from_state_dict(dict(load_file(file)))
        with torch.no_grad():
            made[Path(file).stem] = network.model(given).contiguous()
        made[f"{Path(file).stem} scale"] = torch.tensor(network.scale)
    save_file(made, output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
