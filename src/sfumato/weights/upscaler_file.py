"""ESRGAN-type upscalers from their files: RRDBNet in its three namings, and the compact SRVGGNet."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import WeightsError
from sfumato.nn.upscaler import RRDBNet, SRVGGNet, Upscaler
from sfumato.weights.files import check_finite, open_file

# The namings of ESRGAN's first code and of BSRGAN and Real-SR, as Real-ESRGAN's
_BLOCK = (
    (re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)"), r"body.\1.rdb\2.conv\3.\4"),
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\.(weight|bias)"), r"body.\1.rdb\2.conv\3.\4"),
    (re.compile(r"trunk_conv\.(weight|bias)"), r"conv_body.\1"),
    (re.compile(r"upconv(\d)\.(weight|bias)"), r"conv_up\1.\2"),
    (re.compile(r"HRconv\.(weight|bias)"), r"conv_hr.\1"),
    (re.compile(r"model\.0\.(weight|bias)"), r"conv_first.\1"),
    (re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)"), r"conv_body.\2"),
)
_OUTER = re.compile(r"model\.(\d+)\.(weight|bias)")
WRAPPERS = ("params_ema.", "params.", "module.", "state_dict.")


def load_upscaler(path: Path) -> Upscaler:
    """The network of a file, in float32. Raises ModelFileError, and WeightsError if it is no upscaler that is known."""
    tensors = renamed(open_file(path))
    network = _network(path, tensors)
    own = network.state_dict()
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    wrong = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if missing or unknown or wrong:
        raise WeightsError(
            f"{path} is not the upscaler that it looks like: {len(missing)} tensors are missing, {len(unknown)} "
            f"unknown, {len(wrong)} of another shape, such as {(missing or unknown or wrong)[0]!r}"
        )
    for name, tensor in tensors.items():
        check_finite(name, tensor, path)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return network.eval()


def hollow_upscaler(path: Path) -> Upscaler:
    """The network of a file without its weights, on the meta device. Errors are those of `load_upscaler`."""
    outline = {name: torch.empty(info.shape, device="meta") for name, info in open_file(path).infos.items()}
    return _network(path, renamed(outline))


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under Real-ESRGAN's names, without what they were wrapped in; averaged ones before others."""
    for wrapper in WRAPPERS:
        inside = {name.removeprefix(wrapper): tensors[name] for name in tensors if name.startswith(wrapper)}
        if inside:
            return renamed(inside)
    last = [int(found[1]) for found in map(_OUTER.fullmatch, tensors) if found]
    places = sorted({each for each in last if each > 0})  # the doublings' convolutions, then conv_hr and conv_last
    names = [*(f"conv_up{index + 1}" for index in range(len(places) - 2)), "conv_hr", "conv_last"]
    outer = dict(zip(places, names, strict=True)) if len(places) >= 2 else {}
    found = {}
    for name in tensors:
        new = name
        if (match := _OUTER.fullmatch(name)) and int(match[1]) in outer:
            new = f"{outer[int(match[1])]}.{match[2]}"
        else:
            for pattern, form in _BLOCK:
                if pattern.fullmatch(name):
                    new = pattern.sub(form, name)
                    break
        found[new] = tensors[name]
    return found


def _network(path: Path, tensors: Mapping[str, Tensor]) -> Upscaler:
    """The network that the names and shapes tell."""
    with torch.device("meta"):
        if "conv_first.weight" in tensors and "body.0.rdb1.conv1.weight" in tensors:
            features, channels = tensors["conv_first.weight"].shape[:2]
            folded = math.isqrt(channels // 3)
            if channels != 3 * folded**2:
                raise WeightsError(f"{path}: an upscaler of {channels} channels; those of RGB pictures are known")
            blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("body."))
            doublings = len({name.split(".")[0] for name in tensors if name.startswith("conv_up")})
            growth = len(tensors["body.0.rdb1.conv1.weight"])
            return RRDBNet(features=features, blocks=blocks, growth=growth, doublings=doublings, folded=folded)
        layers = [int(name.split(".")[1]) for name in tensors if re.fullmatch(r"body\.\d+\.weight", name)]
        if layers and tensors["body.0.weight"].ndim == 4 and tensors["body.0.weight"].shape[1] == 3:
            scale = math.isqrt(len(tensors[f"body.{max(layers)}.weight"]) // 3)
            count = (max(layers) - 2) // 2
            return SRVGGNet(features=len(tensors["body.0.weight"]), convolutions=count, scale=scale)
    raise WeightsError(
        f"{path} is no upscaler that is known: ESRGAN's RRDBNet (also Real-ESRGAN, BSRGAN) and the compact SRVGGNet "
        f"are; it has {len(tensors)} tensors, such as {next(iter(tensors), 'none')!r}"
    )
