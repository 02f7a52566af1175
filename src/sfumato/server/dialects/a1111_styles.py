"""Styles from `styles.csv` in sfumato's home: A1111's own file, so that people can bring theirs."""

import csv
import io
import logging
from pathlib import Path

from sfumato.server.dialects.a1111_catalogue import Style
from sfumato.weights.locate import home

log = logging.getLogger(__name__)

LARGEST = 4 * 2**20  # bytes; a style is some hundred


def read_styles(path: Path | None = None) -> dict[str, Style]:
    """The styles of a file by name; none where there is no file or it cannot be read.

    Its columns are name, prompt (in old files text) and negative_prompt. Rows without a name are headings.
    """
    path = home() / "styles.csv" if path is None else path
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return {}
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeError, csv.Error) as error:
        log.warning("%s cannot be read: %s", path, error)
        return {}
    return {
        row["name"]: Style(row.get("prompt") or row.get("text") or "", row.get("negative_prompt") or "")
        for row in rows
        if row.get("name")
    }
