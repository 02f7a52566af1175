"""The machine that a pickle is a program for, except that it can call nothing but our own functions.

A name becomes a word and nothing is imported; calling a word means looking it up in `pickle_values`. Whatever is named
and not listed there raises UnsafeCheckpointError with its name.
"""

import struct
from typing import Any, Protocol

from sfumato.errors import UnsafeCheckpointError
from sfumato.weights.pickle_values import CALLS, INERT, WORDS, Damaged, Named, Opaque, Storage, storage_of

MOST_MEMORIES = 1_000_000
MOST_BYTES = 64 * 1024 * 1024  # of the pickle itself, without the numbers; real ones have below 2 MB
LONGEST_NUMBER = 1024  # bytes of one whole number
LONGEST_LINE = 4096  # of an opcode that is written as text
SCALARS = (str, int, float, bytes, bool, type(None), Named)


class Source(Protocol):
    """What a pickle is read from."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self, limit: int, /) -> bytes: ...


class Machine:
    """A stack, a memory and a source: what the operations of a pickle work on.

    `storages` are all that the pickle refers to, by their keys.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = MOST_BYTES
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    # reading

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        if count > self._left:
            raise Damaged(f"its pickle is longer than {MOST_BYTES:,} bytes or promises more than there is")
        self._left -= count
        found = self._source.read(count)
        if len(found) != count:
            raise Damaged("it ends in the middle of its pickle; download it again")
        return found

    def line(self) -> bytes:
        """Read a line, without its end."""
        found = self._source.readline(LONGEST_LINE)
        self._left -= len(found)
        if not found.endswith(b"\n") or self._left < 0:
            raise Damaged("a line of its pickle does not end")
        return found[:-1]

    def number(self, form: str) -> Any:
        """Read one number of a fixed form (`struct`)."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text_line(self) -> str:
        """Read a line of text."""
        return decoded(self.line())

    def sized(self, form: str) -> bytes:
        """Read bytes behind their length."""
        return self.take(self.number(form))

    def whole(self, form: str) -> None:
        """Push a whole number of any length behind its length in bytes."""
        length = self.number(form)
        if not 0 <= length <= LONGEST_NUMBER:
            raise Damaged(f"a whole number of {length:,} bytes")
        self.push(int.from_bytes(self.take(length), "little", signed=True))

    # the stack

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pull(self) -> Any:
        """Take the top value."""
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) <= floor:
            raise Damaged("its pickle takes a value that is not there")
        return self._stack.pop()

    def top(self) -> Any:
        """Return the top value, which stays."""
        value = self.pull()
        self._stack.append(value)
        return value

    def mark(self) -> None:
        """Begin a run of values."""
        self._marks.append(len(self._stack))

    def run_of_values(self) -> list[Any]:
        """Take the values since the last mark."""
        if not self._marks:
            raise Damaged("its pickle ends a run that never began")
        place = self._marks.pop()
        values = self._stack[place:]
        del self._stack[place:]
        return values

    def drop_run(self) -> None:
        """Drop the values since the last mark."""
        self.run_of_values()

    def pop(self) -> None:
        """Drop the top; a mark counts as one."""
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self.pull()

    def last(self, count: int) -> None:
        """Make a tuple of the last so many values."""
        self.push(tuple(reversed([self.pull() for _ in range(count)])))

    def remember(self, key: object) -> None:
        """Keep the top under a number."""
        if type(key) is not int or len(self._memory) >= MOST_MEMORIES:
            raise Damaged(f"its pickle remembers more than {MOST_MEMORIES:,} values, or one under no number")
        self._memory[key] = self.top()

    def memoize(self) -> None:
        """Keep the top under the next number."""
        self.remember(len(self._memory))

    def recall(self, key: object) -> None:
        """Push what was kept under a number."""
        if type(key) is not int or key not in self._memory:
            raise Damaged("its pickle recalls what it never kept")
        self.push(self._memory[key])

    # containers

    def add_pairs(self, values: list[Any]) -> None:
        """Put keys and values, in turns, into the dictionary on the top."""
        target = self.top()
        if len(values) % 2 or not isinstance(target, dict | Opaque):
            raise Damaged("its pickle sets items of something that is no dictionary")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if any(not is_key(key) for key, _ in pairs):
            raise Damaged("a dictionary has a key that is neither a text nor a number")
        if isinstance(target, dict):
            target.update(pairs)

    def add_items(self, values: list[Any]) -> None:
        """Put values into the list (or set) on the top."""
        target = self.top()
        if not isinstance(target, list | Opaque):
            raise Damaged("its pickle appends to something that is no list")
        if isinstance(target, list):
            target.extend(values)

    def make_dict(self) -> None:
        """Make a dictionary of a run of keys and values."""
        values = self.run_of_values()
        self.push({})
        self.add_pairs(values)

    # names and calls

    def name(self, module: object, name: object) -> None:
        """Push a word for what a pickle names. Raises UnsafeCheckpointError unless it is one of those that we know."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("its pickle names something by no text")
        found = Named(module, name)
        if found not in CALLS and found not in WORDS and found not in INERT:
            raise unsafe(f"{found}")
        self.push(found)

    def call(self) -> None:
        """Call a word with a tuple of arguments: ours, if it has one; a known harmless class becomes opaque."""
        arguments, function = self.pull(), self.pull()
        if not isinstance(arguments, tuple) or not isinstance(function, Named):
            raise Damaged("its pickle calls something that is no name")
        if function in CALLS:
            self.push(CALLS[function](arguments))
        elif function in INERT:
            self.push(Opaque(function, arguments))
        else:
            raise Damaged(f"its pickle calls {function}, which is a type of numbers")

    def build(self) -> None:
        """Give an object its state: kept for what is opaque; a dictionary's attributes mean nothing to us."""
        state, target = self.pull(), self.top()
        if isinstance(target, Opaque):
            target.state = state
        elif not isinstance(target, dict):
            raise Damaged("its pickle changes the state of something that has none")

    def persistent(self) -> None:
        """Push the storage that a persistent id names; the old layout tells classes in this way, too."""
        told = self.pull()
        if isinstance(told, tuple) and len(told) == 4 and told[0] == "module" and isinstance(told[1], Named):
            self.push(told[1])  # beside it are the class's file and source, which are nothing to us
            return
        found = storage_of(told)
        known = self.storages.setdefault(found.key, found)
        if known.size != found.size:
            raise Damaged(f"the storage {found.key[:60]!r} is told with two sizes")
        self.push(found)

    def refuse_class(self, what: str) -> None:
        """Refuse an operation that makes an object of a class, naming it where it can be seen."""
        values = self.run_of_values() if self._marks else self._stack[-3:]
        named = next((str(value) for value in values if isinstance(value, Named)), None)
        raise unsafe(named or what)


def unsafe(name: str) -> UnsafeCheckpointError:
    """Return the error for a name that tensors do not need."""
    shown = name if len(name) <= 200 else name[:200] + "..."
    return UnsafeCheckpointError(
        f"it names {shown!r}, which tensors do not need and which could run code when another program opens it. "
        "Nothing of it was run. Do not use this file; get the model as .safetensors, from a source that you trust.",
        shown,
    )


def decoded(text: bytes) -> str:
    """Return text of a pickle; Python 2 wrote bytes, which may be in any coding."""
    try:
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def is_key(value: object) -> bool:
    """Say whether a value can be a key: a scalar, an opaque thing, or a tuple of scalars."""
    if isinstance(value, tuple):
        return len(value) <= 16 and all(isinstance(item, SCALARS) for item in value)
    return isinstance(value, (*SCALARS, Opaque))
