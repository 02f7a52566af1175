"""On which device and in which precision networks run, by the names that people give them."""

import torch

from sfumato.errors import RequestError

DEVICES = ("cpu", "cuda", "mps")
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def choose_device(name: str | None = None) -> torch.device:
    """The device of a name such as "cuda:1"; without one, the best that this machine has: CUDA, then MPS, then CPU.

    Raises RequestError for a name that is none, or a device that is not there.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise RequestError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}, or like cuda:1", "device")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= there:
        raise RequestError(f"device is {name!r}; this machine has {there} of that kind; try --device cpu", "device")
    return torch.device(name)


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype | None:
    """The precision of a name; without one, float32 on a CPU and that of the model's files elsewhere (None).

    Raises RequestError for another name.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else None
    return named_dtype(name)


def named_dtype(name: str) -> torch.dtype:
    """The precision of a name. Raises RequestError for another name."""
    if name not in DTYPES:
        raise RequestError(f"dtype is {name!r}; it must be one of {', '.join(DTYPES)}", "dtype")
    return DTYPES[name]
