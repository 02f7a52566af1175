"""Artists and readers that are right by construction, and wrong in one thing where a test says so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.evaluate.artist import Clock
from sfumato.evaluate.edits import EDITS, Edit, additions, exchanges
from sfumato.evaluate.measure import measure
from sfumato.evaluate.memorisation import Training
from sfumato.evaluate.readings import Eyes, rendered
from sfumato.evaluate.report import Report
from sfumato.evaluate.rows import LEARNED, RULES
from sfumato.evaluate.suites import SUITES, cases
from sfumato.images import to_levels, to_pictures
from sfumato.scenes.reader import Reading, ReadThing
from sfumato.scenes.scene import Scene

SIDE = 64
FEW = Training(scenes=20)
NOWHERE = Scene((), "grass", "flat", 0.6, 0)

Spoil = Callable[[Scene], Scene]


def faithful(scene: Scene) -> Scene:
    return scene


def truth(scene: Scene) -> Reading:
    """What a reader without fault sees in a scene's picture."""
    things = tuple(ReadThing(t.kind, t.colour, t.size, t.x, t.y) for t in scene.things)
    return Reading(things, scene.background, scene.style)


@dataclass
class World:
    """Which picture shows which scene, by its bytes."""

    shown: dict[bytes, Scene] = field(default_factory=dict)

    def draw(self, scene: Scene) -> Image.Image:
        return self.show(rendered([scene], SIDE)[0], scene)

    def show(self, picture: Image.Image, scene: Scene) -> Image.Image:
        self.shown[picture.tobytes()] = scene
        return picture

    def read(self, pixels: Tensor) -> list[Reading]:
        return [truth(self.shown[picture.tobytes()]) for picture in to_pictures(to_levels(pixels))]


@dataclass(frozen=True)
class Perfect:
    """Draws the true render of the scene that a prompt was made from, after `spoil`; its autoencoder loses nothing."""

    world: World
    suite: str
    count: int
    spoil: Spoil = faithful
    seed: int = 0
    side: int = SIDE
    name: str = "perfect"
    clock: Clock = field(default_factory=Clock)

    @property
    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def draw(self, prompts: Sequence[str], told: Callable[[], None]) -> list[Image.Image]:
        known = {case.caption.text: case.scene for case in cases(SUITES[self.suite], self.count)}
        pictures = []
        with self.clock.running(len(prompts)):
            for prompt in prompts:
                pictures.append(self.world.draw(self.spoil(known[prompt]) if prompt else NOWHERE))
                told()
        return pictures

    def redraw(self, picture: Image.Image, prompt: str, number: int, strength: float) -> Image.Image:
        return self.world.draw(self.spoil(self._edit(prompt, number).after))

    def repaint(self, picture: Image.Image, mask: Image.Image, prompt: str, number: int) -> Image.Image:
        scene = self.spoil(self._edit(prompt, number).after)
        return self.world.show(Image.composite(rendered([scene], SIDE)[0], picture, mask), scene)

    def _edit(self, prompt: str, number: int) -> Edit:
        edit = {"img2img": exchanges, "inpainting": additions}[self.suite](number + 1)[number]
        assert edit.caption.text == prompt
        return edit

    def through(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        return list(pictures)


def eyes_of(world: World) -> Eyes:
    """Two readers that make no mistakes, and features that are plain pixels."""
    return Eyes({LEARNED: world.read, RULES: world.read}, lambda pixels: F.adaptive_avg_pool2d(pixels, 4).flatten(1))


def measured(suite: str, spoil: Spoil = faithful, count: int = 6, make: type[Perfect] = Perfect) -> Report:
    """The report on one suite by an artist that knows its scenes, read without fault."""
    world = World()
    if suite in EDITS:
        for edit in (*exchanges(count), *additions(count)):
            world.draw(edit.before)
            world.draw(edit.after)
    else:
        for case in cases(SUITES[suite], count):
            world.draw(case.scene)
    return measure(make(world, suite, count, spoil), eyes_of(world), (suite,), count, training=FEW)
