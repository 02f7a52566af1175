"""What a picture says about itself: A1111's text and sfumato's record written, everybody's dialects read. No torch."""

from sfumato.metadata.containers import CHUNK, PARAMETERS, read_texts, save
from sfumato.metadata.dialects import Description, describe, describe_texts
from sfumato.metadata.infotext import Infotext, format_infotext, parse_infotext
from sfumato.metadata.record import (
    FORMAT,
    Provenance,
    make_record,
    pixels_digest,
    record_infotext,
    stamp,
    upscaler_label,
)

__all__ = [
    "CHUNK",
    "FORMAT",
    "PARAMETERS",
    "Description",
    "Infotext",
    "Provenance",
    "describe",
    "describe_texts",
    "format_infotext",
    "make_record",
    "parse_infotext",
    "pixels_digest",
    "read_texts",
    "record_infotext",
    "save",
    "stamp",
    "upscaler_label",
]
