"""Who may import whom, and what stays free of torch: the arrows of the house, held by reading the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sfumato"

# Room -> the rooms that it may import, itself and errors aside. A dotted name stands for one module of a room.
ARROWS: dict[str, set[str]] = {
    room: set(others.split())
    for room, others in {
        "errors": "",
        "request": "",
        "events": "request",
        "metadata": "request",
        "allocator": "",
        "confined": "",
        "opening": "",
        "fitting": "",
        "images": "fitting opening",
        "preview": "images",
        "masks": "images",
        "plots": "images request",
        "batch": "images metadata request",
        "outpainting": "images masks request",
        "upscaling": "images metadata nn request weights",
        "nn": "",
        "diffusion": "",
        "text": "nn diffusion.denoiser request",
        # what a family is and how weights are hashed lies below the model; how a model is read and written, above it
        "model": "nn text diffusion request weights.families weights.hashing",
        "weights": "confined nn text diffusion model request",
        # networks beside the model's and the pictures that they see: in a run they are a part of the conditioning
        "controls": "nn text images metadata request model",
        "admission": "request wording text",  # before a weight is read, and so without torch
        "wording": "request text.wildcards weights.locate",
        "places": "images operations request",
        "operations": "model nn diffusion text images request",
        # networks of another shape for one request, and whether the model has what it asks for
        "guides": "model nn text request diffusion.guidance diffusion.sampling diffusion.samplers diffusion.spacing",
        # which LoRAs the prompts of both passes name: one model draws both
        "hires": "wording guides images operations request nn upscaling diffusion job text.words",
        "job": "wording places controls guides text.words operations hires outpainting request model nn metadata images"
        " masks diffusion",
        "instructed": "operations model nn diffusion text",
        "trajectory": "instructed controls job operations request nn diffusion text",
        "taking": "job masks images request diffusion",  # which pixels are taken, by what became of their latents
        "generation": "trajectory taking guides job hires operations events preview request model metadata images masks"
        " diffusion text upscaling",
        # a step and a decoding without numbers are the real ones, with what a request uses beside its model
        "memory": "allocator model nn weights operations instructed controls guides upscaling text request images",
        "devices": "",
        "named": "controls memory model request upscaling weights",  # opened, and not read
        "kept": "controls devices model nn.resting request weights",  # what an engine is made of: its models,
        "planning": "kept images memory request text.words weights",  # and how they fit into the memory
        "engine": "kept planning named admission guides job wording memory text.words generation diffusion events"
        " weights request images model",
        "replay": "request text.words engine generation job events metadata images model",
        # after how many steps a picture's are replayed on CUDA
        "speed": "operations model diffusion nn",
        "scenes": "",
        # a recipe that draws, for pictures of a class or a mask, does it as every face does
        "train": "allocator preview model diffusion weights nn scenes text images generation operations request",
        # whether a model has the masking that is asked for, before anything is drawn
        "evaluate": "generation guides operations events scenes request model images",
        # the process that answers HTTP: the torch-free half of the house, and of the worker only its process
        "server": "admission confined request wording memory.need memory.shape memory.sizes controls.preprocess"
        " metadata opening text.networks text.tokenizer text.prompt text.words weights.locate weights.known"
        " weights.hashing weights.writing weights.adopted weights.registry weights.titles weights.header fitting"
        " scenes.vocabulary",
        "server.worker": "server allocator engine events metadata replay request weights",  # the process that draws
        # and the one that describes models, and what a request names beside one
        "server.describe": "server named devices memory model diffusion guides job metadata text.words weights wording"
        " request",
        "client": "request events metadata opening server.values",
        "cli": "allocator client controls devices engine evaluate events images metadata operations replay request"
        " scenes batch plots server speed upscaling text train weights wording",
        "__main__": "cli",
    }.items()
}
READING = "tokenizer spans chunks prompt a1111 comfy compel editing composing networks words wildcards"
TORCH_FREE = (
    "controls.preprocess",
    "controls.edges",
    "controls.tones",
    "plots.axes",
    "errors",
    "request",
    "events",
    "metadata",
    *(f"text.{name}" for name in READING.split()),
    "cli",
)
TORCH_FREE += (
    "admission",
    "confined",
    "wording",
    "batch.rows",
    "fitting",
    "memory.need",
    "memory.shape",
    "memory.sizes",
    "opening",
    "weights.locate",
    "weights.known",
    "server",
    "client",
)
TORCH = {"torch", "safetensors", "transformers", "diffusers"}


def modules() -> list[tuple[str, Path]]:
    """Every module of the package under its dotted name, `sfumato.` left out; packages by their own name."""
    named = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            named.append((name, path))
    return named


def imports(path: Path, *, for_types: bool = True) -> Iterator[str]:
    """The dotted names that a file imports, wherever in the file it does so; perhaps without those for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing = set() if for_types else {id(inner) for guard in guards for inner in ast.walk(guard)}
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which hides the arrow"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(room: str, imported: str) -> bool:
    inside = imported.removeprefix("sfumato.").split(".")
    target = inside[0]
    return target in (room.split(".")[0], "errors", "__version__") or bool(
        {target, ".".join(inside[:2])} & ARROWS[room]
    )


@pytest.mark.parametrize(("name", "path"), modules())
def test_a_room_imports_only_the_rooms_that_the_house_allows(name: str, path: Path) -> None:
    room = name if name in ARROWS else name.split(".")[0]
    assert room in ARROWS, f"{room} is a new room: say here whom it may import"
    wrong = [target for target in imports(path) if target.startswith("sfumato.") and not allowed(room, target)]
    assert not wrong, f"{name} imports {', '.join(wrong)}; {room} may import {sorted(ARROWS[room])}"


@pytest.mark.parametrize("name", [name for name, _ in modules() if name.startswith(TORCH_FREE)])
def test_a_torch_free_module_names_neither_torch_nor_a_network(name: str) -> None:
    path = dict(modules())[name]
    wrong = [
        target
        for target in imports(path, for_types=False)
        if target.split(".")[0] == "torch" or target.startswith("sfumato.nn")
    ]
    assert not wrong, f"{name} imports {', '.join(wrong)}"


def loaded_after(code: str) -> set[str]:
    """The modules that a new interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_package_and_its_torch_free_modules_does_not_load_torch() -> None:
    names = [name for name, _ in modules() if name.startswith(TORCH_FREE)]
    light = [
        name for name in names if not name.startswith(("opening", "fitting", "server", "controls"))
    ]  # these read pixels, and serve
    for those, kept_out in ((names, TORCH), (light, TORCH | {"numpy", "fastapi", "uvicorn"})):
        loaded = loaded_after("\n".join(["import sfumato", *(f"import sfumato.{name}" for name in those)]))
        assert "sfumato.cli" in loaded
        assert not loaded & kept_out


def test_help_loads_neither_torch_nor_pillow() -> None:
    code = "import sfumato.cli\ntry:\n    sfumato.cli.main(['--help'])\nexcept SystemExit:\n    pass"
    assert not loaded_after(code) & {"torch", "numpy", "PIL"}


def test_nothing_prints_except_the_command_line() -> None:
    prints = [
        f"{name}:{node.lineno}"
        for name, path in modules()
        if not name.startswith("cli")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints
