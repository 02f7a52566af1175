"""Network configurations as other programs publish them: JSON objects, read without guessing."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, Protocol

from sfumato.errors import ConfigError

Options = Mapping[str, object]


class Dataclass(Protocol):
    """A class made by `dataclasses.dataclass`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def known_options(
    config: type[Dataclass], data: Options, *, fixed: Mapping[str, tuple[object, ...]], harmless: Iterable[str] = ()
) -> dict[str, Any]:
    """The options of `data` that are fields of `config`, lists turned into tuples.

    `fixed` maps each option that we have in one form only to the values that mean this form; `harmless` names the
    options that do not change the mathematics. A key that starts with an underscore, and an unknown option that is
    switched off (null or false), are harmless too.
    Raises ConfigError, naming the option, its value and what is supported, for anything else, and for a missing
    field that has no default.
    """
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
    missing = [f.name for f in fields(config) if f.default is MISSING and f.name not in data]
    if missing:
        raise ConfigError(f"{config.__name__}: {', '.join(missing)} missing; is this another network's configuration?")
    return {key: frozen(value) for key, value in data.items() if key in names}


def unsupported(config: str, option: str, value: object, supported: str) -> ConfigError:
    """The error for an option that we cannot honour."""
    return ConfigError(f"{config}: {option} = {value!r} is not supported; supported: {supported}.")


def frozen(value: object) -> object:
    """`value` with every list turned into a tuple."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: object) -> object:
    """`value` with every tuple turned into a list, as JSON has it."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
