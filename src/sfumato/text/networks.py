"""LoRAs that are named in a prompt, in the dialect of stable-diffusion-webui: `<lora:name:0.8>`.

`<lora:name>` counts 1, `<lora:name:0.8>` 0.8, and `<lora:name:0.5:0.8>` 0.5 in the text encoders and 0.8 in the UNet:
the text comes first, as in the webui. `te=0.5` and `unet=0.8` may be written instead. `<lyco:...>` is the same.
"""

import re

from sfumato.errors import PromptError
from sfumato.request import Lora

_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^<>]*)>")
_KNOWN = ("te", "unet")


def without_networks(text: str) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without the names of networks in it, and the LoRAs that they name, in order.

    Raises PromptError for weights that are no numbers, and for hypernetworks, which are not supported.
    """
    found = [_lora(match[1], match[2]) for match in _NETWORK.finditer(text)]
    return (_NETWORK.sub("", text), tuple(found)) if found else (text, ())


def _lora(kind: str, arguments: str) -> Lora:
    if kind == "hypernet":
        raise PromptError(
            f"The prompt asks for a hypernetwork, <hypernet:{arguments[:60]}>, which is not supported.", "prompt"
        )
    name, *rest = arguments.split(":")
    positional = [each for each in rest if "=" not in each]
    named = dict(each.split("=", 1) for each in rest if "=" in each)
    given = [*positional, *named.values()]
    if not name.strip() or len(positional) > 2 or not named.keys() <= set(_KNOWN) or not all(map(_is_number, given)):
        raise PromptError(
            f"The prompt has <{kind}:{arguments[:60]}>; write <lora:name:0.8>, or <lora:name:0.5:0.8> for 0.5 "
            "in the text encoders and 0.8 in the UNet.",
            "prompt",
        )
    text = float(named.get("te", positional[0] if positional else 1.0))
    unet = float(named.get("unet", positional[1] if len(positional) == 2 else text))
    return Lora(name.strip(), unet, text)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False
