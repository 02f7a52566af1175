"""What can go wrong, as a tree; every message says what was found, what would be right, and what to do.

SfumatoError
├── RequestError         a field of a request is wrong: names the field, the value and the range
│   └── PromptError      a prompt cannot be read or encoded
├── PictureError         a picture or its metadata cannot be read
├── ConfigError          a configuration (network, scheduler, training) is wrong or asks for what we do not have
├── ModelNotFoundError   a name that is neither an alias, a path nor in a local cache
├── ModelFileError       a file is not a readable model file: container, header, truncation
│   ├── WeightsError     a readable file whose tensors are not the model they should be
│   └── UnsafeCheckpointError   a pickle that names something that tensors do not need: it could run code
├── MemoryLimitError     what was asked for does not fit the memory, and nothing makes it fit
├── DataError            training data that cannot be used
├── ServerError          a server that cannot be reached, or says no
├── CheckpointError      a training run that cannot be resumed
└── OutputError          a result that cannot be written, or would overwrite something
    └── OutputFormatError    the name of a result asks for a format in which it is not written
"""


def reason(error: Exception) -> str:
    """Why something could not be read or written: in the system's words, without its number and the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class SfumatoError(Exception):
    """The base of every error that sfumato raises on purpose."""


class RequestError(SfumatoError):
    """A field of a request is wrong. `field` is its name, for faces that point at it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PromptError(RequestError):
    """A prompt cannot be read or encoded."""


class PictureError(SfumatoError):
    """A picture or its metadata cannot be read."""


class ConfigError(SfumatoError):
    """A configuration is wrong, or asks for something that sfumato does not have."""


class ModelNotFoundError(SfumatoError):
    """A model name is neither an alias, a path, nor in a local cache."""


class ModelFileError(SfumatoError):
    """A file is not a readable model file."""


class WeightsError(ModelFileError):
    """A readable file holds other tensors than the model needs."""


class UnsafeCheckpointError(ModelFileError):
    """A pickle names a function or class that tensors do not need. `name` is what it named; nothing of it was run."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class MemoryLimitError(SfumatoError):
    """What was asked for does not fit the memory; says how much it needs, how much there is, and what to do."""


class DataError(SfumatoError):
    """Training data cannot be used."""


class ServerError(SfumatoError):
    """A server cannot be reached, refuses, or did not do what was asked."""


class CheckpointError(SfumatoError):
    """A training run cannot be resumed from what is on disk."""


class OutputError(SfumatoError):
    """A result cannot be written, or would overwrite something."""


class OutputFormatError(OutputError):
    """The name of a result asks for a format in which it is not written."""
