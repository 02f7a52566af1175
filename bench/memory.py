"""The memory that pictures take, foretold and then measured: `python -m bench.memory [--every N] [--only TEXT]`.

Sixty configurations of the published families, each in a process of its own, which draws as the command line does.
The weights are zeros (`bench.blank`): what is held does not depend on their values. Prints a row for each, and last how
many estimates were within what is promised. With `--small` the networks have a fifth of the widths, and small pictures
twice the sides, which takes minutes in place of hours. `--results FILE` keeps each row as a line of JSON as soon as it
is measured; what is in the file already is not measured again, so that a run that was cut short goes on.
"""

import argparse
import itertools
import json
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

LOW, HIGH, SHARE = -0.05, 0.30, 0.95  # what is promised: the estimate within these of the peak, for so many
PLENTY = "900GB"  # a budget in which nothing has to be saved
THREADS = 1  # more wait for each other where other work goes on
GIB = 2**30
LARGEST = 256  # pixels of the sides that small networks draw at twice
SD1, SD2, XL, SEES_MASK = "sd15", "sd2", "sdxl", "sd15-inpaint"


def told(model: str, side: int, *, wide: int | None = None, memory: str = PLENTY, **fields: Any) -> dict[str, Any]:
    """A configuration: a model's family, a size, a budget, and other fields of the request.

    Beside those of a request there are `dtype`, `stored` (the numbers of the model's files, float16 unless told),
    `share` (a budget, as a part of the estimate without one), and `start` and `mask`, which are drawn here; LoRAs,
    control networks and upscalers are names of what `make` writes.
    """
    return {"model": model, "width": wide or side, "height": side, "memory": memory, **fields}


def configurations() -> Iterator[dict[str, Any]]:
    """Sixty ways to draw; small ones for the most part, since a processor computes them all. Of each kind in turn."""
    kinds = (plain(), with_networks(), saving(), from_pictures(), large())
    for turn in itertools.zip_longest(*kinds):
        yield from (each for each in turn if each is not None)


def with_networks() -> Iterator[dict[str, Any]]:
    """LoRAs, control networks, pictures in place of words, a refiner, networks that enlarge."""
    for side in (128, 256):
        yield told(SD1, side, loras=["lora"])
        yield told(SD1, side, controls=["controlnet"], stored="float32")
    yield told(SD1, 192, loras=["lora", "other"], stored="float32")
    yield told(SD1, 128, loras=["lora"], controls=["controlnet"], count=2, batch=2)
    yield told(SD1, 192, controls=["controlnet", "controlnet"], guidance=1, stored="float32")
    yield told(SD1, 128, dtype="bfloat16", loras=["lora"], controls=["controlnet"], guidance=1)
    yield told(SD2, 192, loras=["lora"], stored="float32")
    yield told(SD2, 192, controls=["controlnet"], stored="float32")
    yield told(SD1, 128, image_prompts=["ip-adapter"], guidance=1, stored="float32")
    yield told(SD1, 128, hires={"size": [256, 256], "upscaler": "upscaler"}, stored="float32")
    yield told(SD1, 192, regions=[{"prompt": "a tree", "area": "left"}, {"prompt": "a hut", "area": "right"}])
    yield told(SD1, 128, dtype="bfloat16", refiner={"model": SD1, "at": 0.5}, steps=2, guidance=1)


def saving() -> Iterator[dict[str, Any]]:
    """Budgets in which something has to be saved."""
    yield told(SD1, 512, memory="low")
    yield told(SD1, 256, share=0.5)
    yield told(SD1, 256, share=0.5, loras=["lora"])
    yield told(SD1, 192, memory="low", start=True, guidance=1)
    yield told(SD1, 128, share=0.5, controls=["controlnet"])
    yield told(SD1, 576, share=0.5, guidance=1)
    yield told(SD2, 128, memory="low", loras=["lora"])
    yield told(SD2, 256, share=0.5, start=True)
    yield told(XL, 128, memory="low", guidance=1)
    yield told(XL, 128, memory="low", loras=["lora"])
    yield told(XL, 128, memory="low", controls=["controlnet"], guidance=1)
    yield told(XL, 256, memory="low", guidance=1)


def from_pictures() -> Iterator[dict[str, Any]]:
    """Start pictures, masks and second passes."""
    yield told(SD1, 256, start=True, guidance=1)
    yield told(SD1, 384, start=True, guidance=1, stored="float32")
    yield told(SD2, 192, start=True, stored="float32")
    yield told(SD1, 192, start=True, mask=True, stored="float32")
    yield told(SEES_MASK, 192, start=True, mask=True)
    yield told(SD1, 128, hires={"scale": 1.5, "upscaler": "latent"})
    yield told(SD1, 128, hires={"scale": 2, "upscaler": "lanczos"}, stored="float32")
    yield told(SD2, 128, start=True, dtype="bfloat16", guidance=1)


def plain() -> Iterator[dict[str, Any]]:
    """Families, precisions, sizes and pictures together."""
    for model, stored in itertools.product((SD1, SD2), ("float16", "float32")):
        yield told(model, 128, stored=stored)
        yield told(model, 256, guidance=1, stored=stored)
        yield told(model, 128, wide=192, count=2, batch=2, stored=stored)
    for model in (SD1, SD2):
        yield told(model, 128, dtype="bfloat16", guidance=1)
        yield told(model, 64, dtype="bfloat16", count=2, batch=2)
    yield told(SD1, 128, count=4, batch=4, stored="float32")
    yield told(SD2, 128, count=3, batch=3)
    yield told(XL, 128, dtype="bfloat16", guidance=1)
    yield told(XL, 64, dtype="bfloat16", count=2, batch=2)


def large() -> Iterator[dict[str, Any]]:
    """The sizes that people draw at, and budgets for them."""
    yield told(SD1, 512, stored="float32")
    yield told(SD2, 384, wide=512, guidance=1, stored="float32")
    yield told(SD1, 384, count=2, batch=2, guidance=1)
    yield told(SD1, 640, share=0.93, guidance=1)
    yield told(SD1, 768, wide=640, guidance=1, stored="float32")
    yield told(SD1, 1024, guidance=1, stored="float32")


def make(root: Path, configuration: Mapping[str, Any], *, small: bool) -> None:
    """Write the model and what is beside it, unless they are there."""
    from bench import blank

    model = configuration["model"]
    family = SD1 if model == SEES_MASK else model
    files = {
        "lora": lambda path: blank.lora(path, family, small=small),
        "other": lambda path: blank.lora(path, family, small=small),
        "controlnet": lambda path: blank.controlnet(path, family, small=small),
        "ip-adapter": lambda path: blank.ip_adapter(path, family, small=small),
        "upscaler": blank.upscaler,
    }
    stored = configuration.get("stored", "float16")
    for folder in (model_folder(root, configuration), *refiner_folder(root, configuration)):
        if not folder.exists():
            blank.model(folder, folder.name, stored, small=small)
    for name in beside(configuration):
        if not place(root, family, name).exists():
            files[name](place(root, family, name))


def model_folder(root: Path, configuration: Mapping[str, Any]) -> Path:
    """Where a configuration's model is."""
    return root / str(configuration.get("stored", "float16")) / str(configuration["model"])


def refiner_folder(root: Path, configuration: Mapping[str, Any]) -> list[Path]:
    """Where its refiner is, if it has one."""
    return [root / "second" / configuration["refiner"]["model"]] if "refiner" in configuration else []


def beside(configuration: Mapping[str, Any]) -> set[str]:
    """The names of what is beside the model."""
    found = {each for field in ("loras", "controls", "image_prompts") for each in configuration.get(field, ())}
    upscaler = configuration.get("hires", {}).get("upscaler")
    return found | ({"upscaler"} if upscaler == "upscaler" else set())


def place(root: Path, family: str, name: str) -> Path:
    """Where the file or folder of something beside the model is."""
    folders = name in ("controlnet", "ip-adapter")
    return root / "beside" / family / (name if folders else f"{name}.safetensors")


def request_of(root: Path, configuration: Mapping[str, Any]) -> Any:
    """The request of a configuration, in one step for each pass."""
    from sfumato.request import Request

    own = {"model", "memory", "share", "dtype", "stored", "start", "mask", "loras", "controls", "image_prompts"}
    own |= {"hires", "refiner"}
    fields: dict[str, Any] = {key: value for key, value in configuration.items() if key not in own}
    model = configuration["model"]
    family = SD1 if model == SEES_MASK else model

    def path(name: str) -> str:
        return str(place(root, family, name))

    fields["loras"] = [(path(name), 0.8) for name in configuration.get("loras", ())]
    picture = str(root / "picture.png")
    fields["controls"] = [{"model": path(name), "image": picture} for name in configuration.get("controls", ())]
    adapters = [path(name) + "/models/ip-adapter.safetensors" for name in configuration.get("image_prompts", ())]
    fields["image_prompts"] = [{"model": each, "images": [picture]} for each in adapters]
    if "hires" in configuration:
        hires = dict(configuration["hires"])
        hires["upscaler"] = path("upscaler") if hires["upscaler"] == "upscaler" else hires["upscaler"]
        fields["hires"] = {**hires, "strength": 1.0}
    for folder in refiner_folder(root, configuration):
        fields["refiner"] = {**configuration["refiner"], "model": str(folder)}
    if configuration.get("start"):
        fields["strength"] = 1.0
    return Request(
        **{"prompt": "a red house", "seed": 1, "model": str(model_folder(root, configuration)), "steps": 1, **fields}
    )


def draw(root: Path, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Draw as a configuration says, in this process: the estimate, the peak, the seconds, and what was saved."""
    import time

    from sfumato.allocator import keep_freed_memory

    keep_freed_memory()  # as the command line does
    import torch
    from PIL import Image

    from sfumato.engine import Engine
    from sfumato.events import Finished

    torch.set_num_threads(THREADS)
    request = request_of(root, configuration)
    size = (configuration["width"], configuration["height"])
    image = Image.new("RGB", size, (90, 120, 60)) if configuration.get("start") else None
    mask = Image.new("L", size, 255) if configuration.get("mask") else None
    budget = configuration["memory"]
    if "share" in configuration:
        whole = Engine("cpu", configuration.get("dtype"), memory=budget).plan(request, image=image, mask=mask)
        assert whole is not None
        budget = f"{int(whole.peak * configuration['share']) >> 20}MB"
    engine = Engine("cpu", configuration.get("dtype"), memory=budget)
    plan = engine.plan(request, image=image, mask=mask)
    assert plan is not None
    began = time.monotonic()
    events = engine.run(request, image=image, mask=mask, metadata=False)
    count = sum(isinstance(event, Finished) for event in events)
    assert count == request.total
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return {
        "estimate": plan.peak,
        "peak": int(found[1]) * 1024,
        "seconds": time.monotonic() - began,
        "saves": plan.saves,
    }


def measure(root: Path, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """One configuration in a process of its own, which has imported what it needs and computed nothing yet.

    Empty if it did not come to an end; what stopped it is on stderr.
    """
    return apart(lambda: draw(root, configuration)) or {}


def apart(work: Callable[[], Any]) -> Any:
    """What a child of this process answers, which leaves nothing in the heap of its parent; None if it fails."""
    answer, written = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(written, json.dumps(work()).encode())
        except BaseException:  # whatever it was, this process must not go on as its parent does
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(written)
    with os.fdopen(answer, "rb") as file:
        found = json.loads(file.read() or b"null")
    os.waitpid(child, 0)
    return found


def kept_in(path: Path | None) -> dict[str, dict[str, Any]]:
    """The answers that a file of results has, by the rows' words."""
    if path is None or not path.exists():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return {row["row"]: row for row in rows}


def keep(path: Path | None, row: str, answer: Mapping[str, Any]) -> None:
    """Add an answer to a file of results."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"row": row, **answer}) + "\n")


def doubled(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration for small networks: twice the sides that are not large, as fast to compute; wider budgets."""
    sides = {key: configuration[key] * (2 if configuration[key] <= LARGEST else 1) for key in ("width", "height")}
    hires = configuration.get("hires", {})
    if "size" in hires:
        sides["hires"] = {**hires, "size": [2 * side for side in hires["size"]]}
    if "share" in configuration:
        sides["share"] = max(configuration["share"], 0.8)  # the rest is what every process has
    return {**configuration, **sides}


def error(answer: Mapping[str, Any]) -> float:
    """How far the estimate is from the peak, as a share of it."""
    return float(answer["estimate"] / answer["peak"] - 1)


def in_words(configuration: Mapping[str, Any]) -> str:
    """A configuration as people read it."""
    size = f"{configuration['width']}x{configuration['height']}"
    rest = {key: value for key, value in configuration.items() if key not in ("model", "width", "height")}
    if rest["memory"] == PLENTY:
        del rest["memory"]
    return f"{configuration['model']} {size} " + json.dumps(rest)[1:-1].replace('"', "")


def tell(row: str, answer: Mapping[str, Any]) -> None:
    """Print a row."""
    if not answer:
        print(f"no answer  {row}", flush=True)
        return
    sizes = " ".join(f"{answer[key] / GIB:5.2f}" for key in ("estimate", "peak"))
    saved = f"  [{answer['saves']}]" if answer["saves"] else ""
    print(f"{sizes} GiB {error(answer):+6.1%} {answer['seconds']:6.1f} s  {row}{saved}", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="networks of a fifth of the widths")
    parser.add_argument("--every", type=int, default=1, help="only each so many of the configurations")
    parser.add_argument("--only", default="", help="only those with this text in them")
    parser.add_argument("--root", type=Path, help="a folder in which the files are kept for another time")
    parser.add_argument("--results", type=Path, help="a file of the rows: what is in it is not measured again")
    chosen = parser.parse_args()
    from PIL import Image

    import sfumato.engine  # noqa: F401  # what a process has before it is measured

    every = itertools.islice(configurations(), 0, None, chosen.every)
    runs = [each for each in (map(doubled, every) if chosen.small else every) if chosen.only in in_words(each)]
    if not runs:
        parser.error(f"--only {chosen.only!r}: no row has this text in it")
    kept = kept_in(chosen.results)
    inside = 0
    with tempfile.TemporaryDirectory() as folder:
        root = chosen.root or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        os.environ["SFUMATO_HOME"] = str(root / "home")
        Image.new("RGB", (512, 512), (90, 120, 60)).save(root / "picture.png")
        for configuration in runs:
            row = f"{'small ' if chosen.small else ''}{in_words(configuration)}"
            answer: Mapping[str, Any] | None = kept.get(row)
            if answer is None:
                apart(partial(make, root, configuration, small=chosen.small))
                answer = measure(root, configuration)
                if answer:
                    keep(chosen.results, row, answer)
            tell(row, answer)
            inside += bool(answer) and LOW <= error(answer) <= HIGH
    print(f"{inside / len(runs):.0%} of {len(runs)} within {LOW:+.0%} and {HIGH:+.0%}")


if __name__ == "__main__":
    main()
