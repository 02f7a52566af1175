"""The prompts of one picture as they were filled in: what its metadata keep, so that a replay needs no other files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.errors import PictureError


@dataclass(frozen=True)
class Said:
    """The prompts of one picture with styles and all that is drawn filled in; `regions` in their order."""

    prompt: str
    negative_prompt: str = ""
    regions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The prompts as JSON values."""
        regions = {"regions": list(self.regions)} if self.regions else {}
        return {"prompt": self.prompt, "negative_prompt": self.negative_prompt, **regions}


def read_said(record: Mapping[str, Any]) -> dict[int, Said]:
    """The prompts that a picture's record has, by the numbers of the pictures. Raises PictureError."""
    try:
        return {
            int(each["index"]): Said(
                str(each["prompt"]), str(each["negative_prompt"]), tuple(map(str, each.get("regions", ())))
            )
            for each in record.get("words", ())
        }
    except (KeyError, TypeError, ValueError) as error:
        raise PictureError(f"the metadata have words that cannot be read: {error!r}") from error
