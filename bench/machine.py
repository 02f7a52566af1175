"""What the machine is that something is measured on."""

import platform
from pathlib import Path

CPU = Path("/proc/cpuinfo")
BFLOAT16 = ("amx_bf16", "avx512_bf16")  # flags of processors that have units for it


def units() -> list[str]:
    """The processor's units for vectors and matrices, the widest first."""
    flags = CPU.read_text().split()
    return [unit for unit in (*BFLOAT16, "avx512f", "avx2") if unit in flags]


def machine() -> str:
    """What this machine is, in a line."""
    from importlib.metadata import PackageNotFoundError, version

    def named(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"no {package}"

    names = [line.split(":")[1].strip() for line in CPU.read_text().splitlines() if "model name" in line]
    packages = ", ".join(named(package) for package in ("torch", "diffusers", "transformers", "openvino"))
    kind = f"{len(names)} x {names[0]} ({', '.join(units())}), {platform.system()}"
    return f"{kind}; Python {platform.python_version()}, {packages}"
