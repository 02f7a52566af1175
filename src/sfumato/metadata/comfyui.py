"""The prompt and the settings in a ComfyUI graph (API format: node id -> class_type, inputs)."""

from collections.abc import Mapping
from typing import Any

Setting = str | int | float | bool | None

_SAMPLER_INPUTS = {
    "seed": "seed",
    "noise_seed": "seed",
    "steps": "steps",
    "cfg": "guidance",
    "sampler_name": "sampler",
    "scheduler": "spacing",
    "denoise": "strength",
}


def describe_graph(graph: Mapping[str, Any]) -> tuple[str, str, dict[str, Setting]]:
    """The prompt, the negative prompt and the settings of the graph's first sampler, as far as they can be followed.

    Raises TypeError or AttributeError if `graph` is not made of nodes.
    """
    settings: dict[str, Setting] = {}
    prompt = negative = ""
    for node in graph.values():
        kind, inputs = node["class_type"], node.get("inputs", {})
        if kind in ("CheckpointLoaderSimple", "CheckpointLoader"):
            settings.setdefault("model", inputs.get("ckpt_name"))
        if kind == "VAELoader":
            settings.setdefault("vae", inputs.get("vae_name"))
        if kind == "EmptyLatentImage":
            settings.setdefault("width", _literal(graph, inputs.get("width")))
            settings.setdefault("height", _literal(graph, inputs.get("height")))
        if "positive" in inputs and "sampler_name" in inputs and not prompt:
            prompt = _text_behind(graph, inputs.get("positive"))
            negative = _text_behind(graph, inputs.get("negative"))
            for name, ours in _SAMPLER_INPUTS.items():
                if name in inputs:
                    settings[ours] = _literal(graph, inputs[name])
    return prompt, negative, {key: value for key, value in settings.items() if value is not None}


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _literal(graph: Mapping[str, Any], value: Any) -> Setting:
    """A widget's value, followed through the primitive nodes that it may be wired to."""
    seen: set[str] = set()
    while _is_link(value):
        name = value[0]
        if name in seen or name not in graph:
            return None
        seen.add(name)
        inputs = graph[name].get("inputs", {})
        value = next(
            (inputs[key] for key in ("value", "text", "string", "seed", "int", "float") if key in inputs), None
        )
    return value if isinstance(value, str | int | float | bool) else None


def _text_behind(graph: Mapping[str, Any], link: Any) -> str:
    """The texts of all text encoders that the conditioning at `link` was made from, in the order they are met."""
    texts: list[str] = []
    seen: set[str] = set()
    waiting = [link]
    while waiting:
        link = waiting.pop(0)
        if not _is_link(link) or link[0] in seen or link[0] not in graph:
            continue
        seen.add(link[0])
        inputs = graph[link[0]].get("inputs", {})
        for key in ("text", "text_g", "text_l"):
            text = _literal(graph, inputs.get(key))
            if isinstance(text, str) and text and text not in texts:
                texts.append(text)
        if not any(key in inputs for key in ("text", "text_g", "text_l")):
            # ControlNet nodes take both prompts and give both: only the side that was asked for is followed
            side = ("positive", "negative")[min(max(link[1], 0), 1)]
            waiting += [value for key, value in inputs.items() if key.startswith("conditioning") or key == side]
    return "\n".join(texts)
