"""Models that were distilled to few steps, as far as their names or schedulers say it: no shape shows it.

What is told here are defaults: how many steps, without guidance, on which noise levels. A request may say otherwise.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfumato.model import Family

EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
ANCESTRAL = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
DDIM = {
    "_class_name": "DDIMScheduler",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
}
LCM = {"_class_name": "LCMScheduler"}
TCD = {"_class_name": "TCDScheduler"}
STEPS = re.compile(r"(?<![0-9])(\d{1,2})[-_ ]?steps?(?![a-z])", re.IGNORECASE)
OFFICIAL_TURBO = re.compile(r"(stabilityai--)?sd[-_]?(xl)?[-_]turbo", re.IGNORECASE)


@dataclass(frozen=True)
class Distilled:
    """A way of distilling: the words for it, its default steps and guidance, and its scheduler.

    The scheduler replaces that of a single file, which has none; a folder's own stays.
    """

    name: str
    steps: int
    guidance: float
    scheduler: Mapping[str, Any]
    size: int | None = None
    why: str = ""

    @property
    def told(self) -> str:
        """What is said of it behind why a family was chosen."""
        return f"; {self.why}: {self.steps} steps, guidance {self.guidance:g}"


# The word in a name -> what its publishers say: stabilityai/sdxl-turbo, ByteDance/SDXL-Lightning, ByteDance/Hyper-SD,
# latent-consistency, and "A Trajectory Consistency Distillation" (TCD), on huggingface.co.
KNOWN = (
    Distilled("turbo", 4, 1.0, ANCESTRAL),
    Distilled("lightning", 4, 1.0, EULER),
    Distilled("hyper", 4, 1.0, DDIM),
    Distilled("lcm", 4, 1.0, LCM),
    Distilled("tcd", 4, 1.0, TCD),
)
SCHEDULERS = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}


def distilled_by_name(names: Iterable[str]) -> Distilled | None:
    """Return how a model was distilled by the first of its names that says so; "4step" in it tells the steps."""
    for name in names:
        for each in KNOWN:
            if re.search(rf"(?<![a-z]){each.name}(?![a-z])", name.replace("SDXL", "sdxl ").lower()) is None:
                continue
            steps = STEPS.search(name)
            count = int(steps[1]) if steps is not None and 1 <= int(steps[1]) <= 50 else each.steps
            size = 512 if each.name == "turbo" and OFFICIAL_TURBO.match(name) else None
            found = replace(each, steps=count, size=size, why=f"its name {name!r} says {each.name}")
            one_step = each.name == "hyper" and count == 1  # which its publishers run as consistency models
            return replace(found, scheduler=LCM) if one_step else found
    return None


def distilled_by_scheduler(scheduler: Mapping[str, Any]) -> Distilled | None:
    """Return how a model was distilled by the class of its scheduler, where only distilled ones have it."""
    kind = scheduler.get("_class_name")
    word = SCHEDULERS.get(kind) if isinstance(kind, str) else None
    return next((replace(each, why=f"its scheduler is an {kind}") for each in KNOWN if each.name == word), None)


def with_distillation(family: Family, found: Distilled | None) -> Family:
    """Return the family with a distilled model's defaults."""
    if found is None:
        return family
    return replace(family, steps=found.steps, guidance=found.guidance, size=found.size or family.size)


def names_of(path: Path) -> list[str]:
    """Return what a path calls a model: the file's or folder's name, and the repository's in the Hugging Face cache."""
    names = [path.stem if path.is_file() else path.name]
    repository = next((part.name for part in path.parents if part.name.startswith("models--")), None)
    return names if repository is None else [*names, repository.removeprefix("models--")]
