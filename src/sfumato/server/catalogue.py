"""Which models and samplers there are: named by the registry, described by a child, remembered in the database."""

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from sfumato import __version__
from sfumato.errors import ModelNotFoundError, SfumatoError
from sfumato.request.traits import Sampled, Traits
from sfumato.server.database import Database
from sfumato.server.problems import Problem, plain
from sfumato.server.settings import Settings
from sfumato.text.prompt import PromptReport, report
from sfumato.text.tokenizer import Tokenizer
from sfumato.weights.adopted import entries
from sfumato.weights.known import Known, known_models
from sfumato.weights.locate import nearest, registry
from sfumato.weights.titles import match

log = logging.getLogger(__name__)

Card = dict[str, Any]
REMEMBERED = f"{__version__} 4"  # by which facts in the database are known to be of this form
FIRST_LOOK = 20.0  # seconds that a question waits for the answers of the first child


class Catalogue:
    """Answers what can be named and what it draws with. Every method may be called from any thread."""

    def __init__(self, settings: Settings, tokenizers: Path, database: Database, changed: Callable[[], None]) -> None:
        self._settings, self._tokenizers, self._database, self._changed = settings, tokenizers, database, changed
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._describing = threading.Lock()
        self._cards: dict[str, tuple[str, Card]] = {}
        self._samplers: dict[str, Any] | None = None
        self._read_tokenizers: dict[str, Tokenizer] = {}
        self._settled = threading.Event()
        self._known: tuple[float, dict[str, Known]] = (0.0, {})
        self._states: dict[Known, str] = {}
        self._over = False
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Take what is remembered, and bring it up to date beside everything else."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT key, value FROM facts").fetchall()
        for key, value in rows:
            kind, _, name = key.partition(":")
            found = json.loads(value)
            if kind == "samplers" and found.get("version") == REMEMBERED:
                self._samplers = found["samplers"]
            elif kind == "card" and found.get("version") == REMEMBERED:
                self._cards[name] = (found["state"], found["card"])
        threading.Thread(target=self._refresh, name="catalogue", daemon=True).start()

    def stop(self) -> None:
        """Learn nothing more: who waits for an answer has none, and nothing is written after this returns."""
        with self._news:
            self._over = True
            if self._child is not None:
                self._child.kill()
            self._news.notify_all()
        with self._describing:  # whoever was in it has left
            return

    def _check_open(self) -> None:
        if self._over:
            raise Problem(503, "stopping", "the server is stopping; try again later", retry_after=10)

    def known(self) -> dict[str, Known]:
        """What can be named, looked at anew every second."""
        looked, found = self._known
        if time.monotonic() - looked > 1 or not found:
            found = {each.name: each for each in known_models()}
            self._known, self._states = (time.monotonic(), found), {}
        return found

    def default(self) -> str | None:
        """The model of a request that names none."""
        if self._settings.model is not None:
            return self._settings.model
        return next((name for name, each in self.known().items() if each.kind == "embedded"), None)

    def card(self, name: str | None, *, seconds: float | None = None) -> Card:
        """What a model is. Raises Problem for a name that is none, and for a model that cannot draw."""
        known = self.known()
        wanted = name if name is not None else self.default()
        if wanted is None:
            raise Problem(409, "model.none", "there is no model; `sfumato models add NAME PATH` gives one a name")
        found = meant(wanted, known)
        if found is None:
            named = ", ".join(sorted(known))
            raise Problem(422, "request.model", f"model is {wanted!r}; it must be one of {named}", field="model")
        wanted = found
        card = self._fresh(known[wanted])
        if card is None:
            self.describe([wanted], seconds or self._settings.limits.describe)
            card = self._fresh(known[wanted])
        if card is None:
            self._check_open()
            raise Problem(503, "model.unread", f"{wanted} is still being read; try again", retry_after=5)
        if "problem" in card:
            raise Problem(409, "model.unusable", f"{wanted} cannot draw: {card['problem']}", field="model")
        return card

    def cards(self) -> list[tuple[Known, Card | None]]:
        """All that can be named, with what is known of each; after a start, when that is known of most."""
        self._settled.wait(FIRST_LOOK)
        return [(each, self._fresh(each)) for each in self.known().values()]

    def samplers(self, seconds: float = 60.0) -> dict[str, Any]:
        """The names of samplers and spacings. Raises Problem 503 if they are not known in time."""
        with self._news:
            self._news.wait_for(lambda: self._samplers is not None or self._over, seconds)
            if self._samplers is None:
                self._check_open()
                raise Problem(503, "starting", "the server is still starting; try again", retry_after=3)
            return self._samplers

    def traits(self, name: str | None) -> Traits:
        """What of a model decides what may be asked of it. Raises Problem as `card`."""
        return Traits.from_dict(self.card(name)["traits"])

    def sampled(self, model: str, sampler: str | None, spacing: str | None) -> Sampled:
        """What of a sampler, or of a model's own, and of a spacing decides what may be asked. Raises Problem."""
        facts: Any = self.samplers()
        named = facts["understood"]
        own = self.card(model)["sampled"] if sampler is None else named.get(sampler) or named[sampler.lower()]
        kinds = facts["understood_spacings"]
        return Sampled(**own | ({} if spacing is None else kinds.get(spacing) or kinds[spacing.lower()]))

    def tokens(self, prompt: str, model: str | None) -> PromptReport:
        """What becomes of a prompt in a model."""
        card = self.card(model)
        name = card["tokenizer"]
        if name not in self._read_tokenizers:
            self._read_tokenizers[name] = Tokenizer.from_folder(self._tokenizers / name)
        return report(prompt, self._read_tokenizers[name], limit=card["chunks"])

    def describe(self, names: Sequence[str], seconds: float) -> None:
        """Have a child describe models, one child at a time."""
        with self._describing:
            missing = [name for name in names if self._fresh(self.known()[name]) is None]
            if missing or self._samplers is None:
                self._ask(missing, seconds)
        self._changed()

    def _refresh(self) -> None:
        try:
            missing = [each.name for each in self.known().values() if self._fresh(each) is None]
            self.describe(missing, self._settings.limits.describe)
        except (SfumatoError, OSError) as error:
            log.warning("the models could not be described: %s", error)
        finally:
            self._settled.set()

    def _ask(self, names: Sequence[str], seconds: float) -> None:
        states = {name: self._state(self.known()[name]) for name in names}
        command = [*self._settings.program, "describe", str(self._tokenizers), *names]
        with self._news:  # that `stop` sees this child, or this sees `stop`
            if self._over:
                return
            self._child = child = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
            )
        watch = threading.Timer(seconds, child.kill)
        watch.start()
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                if not line.endswith("\n") or not self._learn(json.loads(line), states):  # it was killed, or we stop
                    break
        watch.cancel()
        self._child = None

    def _learn(self, answer: dict[str, Any], states: dict[str, str]) -> bool:
        """Take an answer of the child; False when nothing is learnt any more."""
        if "samplers" in answer:
            key, found = "samplers:", {"version": REMEMBERED, "samplers": answer["samplers"]}
        else:
            name = answer["name"]
            card = answer.get("card") or {"problem": plain(answer["problem"])}
            key, found = f"card:{name}", {"version": REMEMBERED, "state": states[name], "card": card}
        with self._news:
            if self._over:
                return False
            if "samplers" in answer:
                self._samplers = answer["samplers"]
            else:
                self._cards[answer["name"]] = (found["state"], found["card"])
            self._news.notify_all()
        self._database.change(
            lambda connection: connection.execute(
                "INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, json.dumps(found)),
            )
        )
        return True

    def _fresh(self, known: Known) -> Card | None:
        with self._lock:
            state, card = self._cards.get(known.name, ("", {}))
        return card if card and state == self._state(known) else None

    def _state(self, known: Known) -> str:
        """That of its files, looked at anew whenever what can be named is."""
        states = self._states
        if known not in states:
            states[known] = state_of(known)
        return states[known]


def meant(name: str, known: Collection[str]) -> str | None:
    """The one of the known names that a text means: itself, or what a title of A1111 or ComfyUI stands for."""
    if name in known:
        return name
    entry = titled(name)
    return entry if entry in known else None


def check_named(name: str) -> None:
    """Raise ModelNotFoundError for the name of a model that there is not; a path is no name."""
    known = [each.name for each in known_models()]
    if meant(name, known) is None:
        raise ModelNotFoundError(
            f"no model {name!r}; there are {', '.join(sorted(known)) or 'none'}, and `sfumato models add NAME PATH` "
            f"gives one a name.{nearest(name, known)}"
        )


def titled(name: str) -> str | None:
    """The name of the model that a title of A1111 or ComfyUI means: `name.safetensors [hash]`."""
    try:
        found = match(name, list(entries(registry().folders, "model")))
    except ModelNotFoundError:
        return None
    return None if found is None else found.name


def state_of(known: Known) -> str:
    """What shows that a model's files are still the same: their paths, sizes and times of change."""
    return f"{known.place} {hash_of(states_at(Path(known.place).expanduser()))}"


def states_at(place: Path) -> list[tuple[str, int, int]]:
    """The paths, sizes and times of change of a file or of all in a folder; none where they cannot be looked at."""
    try:
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        return [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [os.stat(file)]]
    except OSError:
        return []


def hash_of(states: Sequence[tuple[str, int, int]]) -> str:
    """A short name for a list of states."""
    import hashlib

    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]
