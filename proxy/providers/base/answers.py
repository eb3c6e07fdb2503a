"""Translates: pieces of answers that vendors share: JSON objects and tool calls, read tolerantly."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

from proxy.providers.base.lenient import lenient, without_halves
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.json import decode_large, utf8
from proxy.schema.json_reading import BROKEN_OFF as BROKEN_OFF
from proxy.schema.json_reading import TextTooLong
from proxy.schema.json_structure import STEP_BYTES
from proxy.schema.json_writing import text_of

_object: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_MAX_CHOICES = 1024
_MAX_PLACE = 6  # digits
T = TypeVar("T")


def decode(data: bytes) -> dict[str, Any]:
    """One JSON object from a provider. Raises UpstreamTruncated for a truncated one, UpstreamError for all else."""
    value, has_halves = decode_piece(data)
    return cast("dict[str, Any]", without_halves(value)) if has_halves else value


def decode_piece(data: bytes) -> tuple[dict[str, Any], bool]:
    """The same. True: its texts may have halves of characters that continue in the next piece."""
    is_odd = False
    try:
        value = _strict(data, _object)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        value, is_odd = _lenient(data), True
        if value is None and str(error) == BROKEN_OFF:
            raise UpstreamTruncated("The provider's answer broke off in the middle.") from None
    if not isinstance(value, dict):
        raise UpstreamError("The provider's answer is not a JSON object.", retryable=True)
    return value, is_odd


def decoded(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The value that `decoder` reads from a provider's JSON; a large one is read in steps. Raises UpstreamError for a
    text that takes too much memory.
    """
    try:
        return _strict(data, decoder)
    except (msgspec.DecodeError, UnicodeError) as error:
        if isinstance(error, msgspec.ValidationError) or (value := _lenient(data)) is None:
            raise
    return msgspec.convert(without_halves(value), decoder.type)


def _strict(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    if len(data) <= STEP_BYTES:
        return decoder.decode(data)
    try:
        value = decode_large(data, _object.decode)
    except TextTooLong as error:
        raise UpstreamError(f"The provider's answer is too large. {error}", upstream_status=200) from None
    return msgspec.convert(value, decoder.type)


def _lenient(data: bytes) -> Any:
    """The value of a text that is not strictly JSON; None if it is not JSON at all, or too large to try."""
    try:
        return lenient(data) if len(data) <= STEP_BYTES else None
    except (ValueError, RecursionError):
        return None


def json_or_none(data: bytes | str) -> Any:
    """The value of a JSON text, None if it is invalid."""
    try:
        if len(data) <= STEP_BYTES:
            return msgspec.json.decode(data)
        return decode_large(utf8(data) if isinstance(data, str) else data, _object.decode)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return without_halves(_lenient(data)) if isinstance(data, bytes) else None


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a list, an empty list for anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def call_entries(value: object) -> list[Any]:
    """The entries of `tool_calls`. Some servers send a single call without the list around it, an object of calls by
    position, or the JSON text of any of these.
    """
    if isinstance(value, str):
        value = json_or_none(value)
    if not isinstance(value, dict):
        return listed(value)
    places = [int(name) for name in value if isinstance(name, str) and name.isdecimal() and len(name) < _MAX_PLACE]
    if not value or len(places) < len(value):
        return [value]
    calls = zip(places, value.values(), strict=True)
    return [
        {"index": place, **call} for place, call in sorted(calls, key=lambda each: each[0]) if isinstance(call, dict)
    ]


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def is_vector(value: object) -> bool:
    """True for a non-empty list of numbers that a float can hold exactly."""
    numbers = value if isinstance(value, list) else []
    return bool(numbers) and all(
        type(number) is float or (type(number) is int and -(2**53) <= number <= 2**53) for number in numbers
    )


def whole_number(value: object) -> int | None:
    """An index; some servers write it as text."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) < 10 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def choice_index(value: object, place: int) -> int:
    """The index of a choice; its position if the index is missing or impossible."""
    if value == place and type(value) is int:
        return place
    index = whole_number(value)
    return index if index is not None and 0 <= index < _MAX_CHOICES else place


def call_id(value: object) -> str | None:
    """A tool call's id. For a missing one Mistral's SDK writes "null"; some servers send a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value not in ("", "null") else None


def arguments_text(value: object) -> str:
    """Arguments as text; some servers send an object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)


def json_text(value: object) -> str:
    """The JSON of a value whose texts may have halves of characters."""
    try:
        return text_of(value)
    except UnicodeError:
        return text_of(without_halves(value))


def whole_arguments(value: object) -> str:
    """Complete arguments as text; `{}` for none, which servers also write as `null` or leave out."""
    text = arguments_text(value)
    return "{}" if not text or text.isspace() or (len(text) < 64 and text.strip() == "null") else text


def tool_call(raw: object, spare_id: str) -> dict[str, Any]:
    """A whole tool call in OpenAI's shape, with id, type and its arguments as a JSON string."""
    call: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {}
    call.pop("index", None)
    function = call.get("function")
    if isinstance(call.get("custom"), dict):
        return {**call, "id": call_id(call.get("id")) or spare_id, "type": "custom"}
    if not isinstance(function, dict) and "name" in call:  # some servers send it flat
        function = {name: call.pop(name) for name in ("name", "arguments") if name in call}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UpstreamError("The provider's answer has a tool call without a function name.", retryable=True)
    function = {**function, "arguments": whole_arguments(function.get("arguments"))}
    return {**call, "id": call_id(call.get("id")) or spare_id, "type": "function", "function": function}
