"""The few operations of a pickle that tensors need, each as what it does to the machine.

Python's pickletools describes them all. Those that make objects of any class, or take them from the running program,
are here only to be refused by name.
"""

import codecs
from collections.abc import Callable
from typing import Any

from sfumato.weights.pickle_machine import Machine, Source, decoded, unsafe
from sfumato.weights.pickle_values import Damaged, Storage

MOST_OPERATIONS = 2_000_000  # a full training checkpoint of SDXL has about 300,000; each may cost 100 bytes


def read_pickle(source: Source) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle, up to and with its STOP; return its value, and the storages that it refers to by their keys.

    Raises UnsafeCheckpointError for a foreign name, Damaged for anything that no saving of tensors writes.
    """
    machine = Machine(source)
    for _ in range(MOST_OPERATIONS):
        code = machine.take(1)
        if code == b".":
            return machine.pull(), machine.storages
        act = OPCODES.get(code)
        if act is None:
            raise Damaged(f"it has the operation {code!r}, which no tensor needs")
        act(machine)
    raise Damaged(f"it has more than {MOST_OPERATIONS:,} operations")


def _int_line(machine: Machine) -> None:
    line = machine.text_line()
    try:
        value: object = {"00": False, "01": True}[line] if line in ("00", "01") else int(line.rstrip("L"))
    except ValueError as error:
        raise Damaged("a whole number is none") from error
    machine.push(value)


def _float_line(machine: Machine) -> None:
    try:
        machine.push(float(machine.text_line()))
    except ValueError as error:
        raise Damaged("a number is none") from error


def _string_line(machine: Machine) -> None:
    text = machine.text_line().encode("utf-8", "surrogatepass")
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise Damaged("a text has no quotation marks")
    _escaped(machine, text[1:-1])


def _escaped(machine: Machine, text: bytes) -> None:
    try:
        machine.push(codecs.unicode_escape_decode(text)[0])
    except UnicodeDecodeError as error:
        raise Damaged("a text has an escape that means nothing") from error


def _instance(machine: Machine) -> None:
    raise unsafe(f"{machine.text_line()}.{machine.text_line()}")


def _extension(machine: Machine, form: str) -> None:
    raise unsafe(f"extension code {machine.number(form)}")


def _stack_global(machine: Machine) -> None:
    machine.last(2)
    module, name = machine.pull()
    machine.name(module, name)


def _frozen(machine: Machine) -> None:
    machine.push(machine.run_of_values())


def _persistent_line(machine: Machine) -> None:
    raise Damaged(f"it refers to {machine.text_line()[:60]!r}, which is no tensor's storage")


OPCODES: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": lambda m: m.number("<B"),
    b"\x95": lambda m: m.number("<Q"),  # a frame's length, a hint for readers
    b"(": Machine.mark,
    b"0": Machine.pop,
    b"1": Machine.drop_run,
    b"2": lambda m: m.push(m.top()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _int_line,
    b"L": _int_line,
    b"F": _float_line,
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.whole("<B"),
    b"\x8b": lambda m: m.whole("<i"),
    b"G": lambda m: m.push(m.number(">d")),
    b"S": _string_line,
    b"V": lambda m: _escaped(m, m.line()),
    b"T": lambda m: m.push(decoded(m.sized("<I"))),
    b"U": lambda m: m.push(decoded(m.sized("<B"))),
    b"X": lambda m: m.push(decoded(m.sized("<I"))),
    b"\x8c": lambda m: m.push(decoded(m.sized("<B"))),
    b"\x8d": lambda m: m.push(decoded(m.sized("<Q"))),
    b"B": lambda m: m.push(m.sized("<I")),
    b"C": lambda m: m.push(m.sized("<B")),
    b"\x8e": lambda m: m.push(m.sized("<Q")),
    b"\x96": lambda m: m.push(m.sized("<Q")),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.run_of_values())),
    b"\x85": lambda m: m.last(1),
    b"\x86": lambda m: m.last(2),
    b"\x87": lambda m: m.last(3),
    b"]": lambda m: m.push([]),
    b"l": _frozen,
    b"a": lambda m: m.add_items([m.pull()]),
    b"e": lambda m: m.add_items(m.run_of_values()),
    b"}": lambda m: m.push({}),
    b"d": Machine.make_dict,
    b"s": lambda m: m.add_pairs([m.pull(), m.pull()][::-1]),
    b"u": lambda m: m.add_pairs(m.run_of_values()),
    b"\x8f": lambda m: m.push([]),  # a set; its order is of no meaning
    b"\x90": lambda m: m.add_items(m.run_of_values()),
    b"\x91": _frozen,
    b"c": lambda m: m.name(m.text_line(), m.text_line()),
    b"\x93": _stack_global,
    b"R": Machine.call,
    b"\x81": Machine.call,  # a new object of a class; for the few classes that we know it is a call
    b"b": Machine.build,
    b"Q": Machine.persistent,
    b"P": _persistent_line,
    b"p": lambda m: m.remember(_index(m.text_line())),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": Machine.memoize,
    b"g": lambda m: m.recall(_index(m.text_line())),
    b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    # what makes objects of any class, or takes them from a registry of the running program
    b"i": _instance,
    b"o": lambda m: m.refuse_class("an object made by OBJ"),
    b"\x92": lambda m: m.refuse_class("an object made by NEWOBJ_EX"),
    b"\x82": lambda m: _extension(m, "<B"),
    b"\x83": lambda m: _extension(m, "<H"),
    b"\x84": lambda m: _extension(m, "<I"),
}


def _index(line: str) -> int:
    if not line.isdecimal() or len(line) > 9:
        raise Damaged("its pickle remembers a value under no number")
    return int(line)
