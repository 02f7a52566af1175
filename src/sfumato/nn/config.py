"""Network configurations as other programs publish them: JSON objects, read without guessing."""

from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from types import UnionType
from typing import Any, ClassVar, Protocol, get_args, get_origin, get_type_hints

from sfumato.errors import ConfigError

Options = Mapping[str, object]


class Dataclass(Protocol):
    """A class made by `dataclasses.dataclass`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def known_options(
    config: type[Dataclass],
    data: Options,
    *,
    fixed: Mapping[str, tuple[object, ...]],
    harmless: Iterable[str] = (),
    required: Iterable[str] = (),
) -> dict[str, Any]:
    """The options of `data` that are fields of `config`, lists turned into tuples.

    `fixed` maps each option that we have in one form only to the values that mean this form; `harmless` names the
    options that do not change the mathematics. A key that starts with an underscore, and an unknown option that is
    switched off (null or false), are harmless too.
    Raises ConfigError, naming the option, its value and what is supported, for anything else, and when an option of
    `required` is missing.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{config.__name__}: found {type(data).__name__}; a configuration is a JSON object.")
    names = {field.name for field in fields(config)}
    ignored = set(harmless)
    for key, value in data.items():
        if key in names or key in ignored or key.startswith("_"):
            continue
        if key in fixed:
            if frozen(value) not in fixed[key]:
                raise unsupported(config.__name__, key, value, " or ".join(repr(choice) for choice in fixed[key]))
        elif value is not None and value is not False:
            raise unsupported(config.__name__, key, value, "configurations without this option")
    missing = [name for name in required if name not in data]
    if missing:
        raise ConfigError(f"{config.__name__}: {', '.join(missing)} missing; is this another network's configuration?")
    return {key: frozen(value) for key, value in data.items() if key in names}


def check_values(config: Dataclass, sizes: Iterable[str]) -> None:
    """Refuse, with ConfigError, values of another type than the fields of `config` have, and `sizes` below 1."""
    name = type(config).__name__
    for option, hint in get_type_hints(type(config)).items():
        value = getattr(config, option)
        if not matches(value, hint):
            raise unsupported(name, option, value, str(getattr(hint, "__name__", hint)))
    for option in sizes:
        value = getattr(config, option)
        if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
            raise unsupported(name, option, value, "1 or more")


def matches(value: object, hint: Any) -> bool:
    """Is `value` of the type that a field's annotation states?"""
    if isinstance(hint, UnionType):
        return any(matches(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        item, *rest = get_args(hint)
        variable = rest == [...]
        items = value if isinstance(value, tuple) else None
        return items is not None and (variable or len(items) == 1 + len(rest)) and all(matches(i, item) for i in items)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def unsupported(config: str, option: str, value: object, supported: str) -> ConfigError:
    """The error for an option that we cannot honour."""
    return ConfigError(f"{config}: {option} = {value!r} is not supported; supported: {supported}.")


def frozen(value: object) -> object:
    """`value` with every list turned into a tuple."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: object) -> object:
    """`value` with every tuple turned into a list, as JSON has it."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
