"""Translates: what is wanted into what a willing model would say: the mode `actor`, the same on every wire.

It obeys: calls the tool that is forced, or the first one, all of them when the text says `both`; answers with the least
JSON that the schema takes; repeats, counts and reads aloud what it is told to.
Texts in calls are what stands in quotes, if it is not ASCII. It stops where the request says.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.upstream.wire import Said, Wanted

_COUNT = ", ".join(str(number) for number in range(1, 21))
_decoder = json.JSONDecoder()


def act(wanted: Wanted) -> Said:
    """One choice. Reasoning counts towards `max_tokens`, as vendors count it; calls are not cut."""
    reasoning = ["I ", "think ", "so. "] if wanted.reasoning else []
    calls = _calls(wanted)
    if calls:
        return Said(reasoning=reasoning, calls=calls, finish="tool_calls")
    text = _text(wanted)
    ends = [place for stop in wanted.stops if (place := text.find(stop)) >= 0]
    tokens = re.findall(r"\S+\s*", text[: min(ends)] if ends else text)
    most = wanted.max_tokens
    if most is None or most >= len(reasoning) + len(tokens):
        return Said(tokens=tokens, reasoning=reasoning)
    reasoning = reasoning[:most]
    return Said(tokens=tokens[: most - len(reasoning)], reasoning=reasoning, finish="length")


def _calls(wanted: Wanted) -> list[tuple[str, str]]:
    if not wanted.tools or wanted.choice == "none" or (wanted.results and wanted.choice == "auto"):
        return []
    if wanted.choice in wanted.tools:
        names = [wanted.choice]
    else:
        all_of_them = wanted.parallel and "both" in wanted.text
        names = list(wanted.tools)[: None if all_of_them else 1]
    foreign = re.search(r"'([^'\x00-\x7f]+)'", wanted.text)
    least = [(name, _written(instance(wanted.tools[name]))) for name in names]
    return [(name, said.replace("Rex", foreign[1])) for name, said in least] if foreign else least


def _text(wanted: Wanted) -> str:
    told = f"{wanted.system}\n{wanted.text}"
    schema = wanted.schema or _described(told)
    if schema is not None:
        return _written(instance(schema))
    if wanted.json or "JSON" in told:
        return '{"name": "Rex", "age": 3, "tags": []}'
    if wanted.results:
        return f"The tools say: {', '.join(wanted.results)}"
    if rule := re.search(r"one word: (\w+)", told):
        return rule[1]
    if repeat := re.search(r"Repeat exactly: (.*)", told):
        return repeat[1]
    if "Count from 1 to 20" in told:
        return _COUNT
    if "colour" in told:
        return "Red." if "image" in wanted.media else "I see no picture."
    if "file" in told:
        return "walnut" if "file" in wanted.media else "I see no file."
    return f"ok, I read {wanted.turns}"


def instance(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """The least value that a schema takes."""
    root = schema if root is None else root
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return instance(found, root)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return instance(schema[key][-1], root)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind.lower() == "object":
        properties = schema.get("properties", {})
        return {name: instance(properties.get(name, {}), root) for name in schema.get("required", [])}
    return {"string": "Rex", "integer": 3, "number": 0.5, "boolean": True, "array": [], "null": None}[kind.lower()]


def _described(told: str) -> dict[str, Any] | None:
    """A schema in prose: how it reaches models whose vendor has no better way."""
    for match in re.finditer(r"\{", told):
        try:
            found, _ = _decoder.raw_decode(told, match.start())
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and "properties" in found:
            return found
    return None


def _written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
