"""Translates: a JSON value and a type of a vendor's SDK into what is wrong with the value.

For TypedDicts, whose library checks nothing at run time, and for pydantic models, which let unknown fields through in
most SDKs.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

import pydantic
import typing_extensions

_LISTS = (list, collections.abc.Iterable, collections.abc.Sequence, tuple)
_UNIONS = (Union, types.UnionType)
_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired, typing_extensions.Required)


def wrong(value: Any, kind: Any, path: str = "") -> list[str]:
    """Where `value` is not of the type `kind`: unknown or missing keys, other types, other literals. [] is right."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object or isinstance(kind, typing.TypeVar):
        return []
    if isinstance(kind, typing_extensions.TypeAliasType):
        return wrong(value, kind.__value__, path)
    if isinstance(origin, typing_extensions.TypeAliasType):
        return wrong(value, origin.__value__[arguments], path)
    if origin in _WRAPPERS or origin is typing_extensions.NotRequired:
        return wrong(value, arguments[0], path)
    if origin in _UNIONS:
        return _no_branch(value, arguments, path)
    if origin is Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if typing_extensions.is_typeddict(kind):
        return _typed_dict(value, kind, path)
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return _model(value, kind, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [each.value for each in kind]
        return [] if value in names else [f"{path}: {value!r:.60} is none of {names}"]
    if origin in _LISTS:
        if not isinstance(value, list):
            return [f"{path}: {value!r:.60} is no list"]
        return [error for place, each in enumerate(value) for error in wrong(each, arguments[0], f"{path}.{place}")]
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, dict):
            return [f"{path}: {value!r:.60} is no object"]
        return [error for name, each in value.items() for error in wrong(each, arguments[1], f"{path}.{name}")]
    return _plain(value, kind, path)


def _no_branch(value: Any, branches: tuple[Any, ...], path: str) -> list[str]:
    """The branch with the fewest complaints speaks for the union; none: the value is right."""
    complaints = sorted((wrong(value, branch, path) for branch in branches), key=lambda errors: (len(errors), errors))
    return complaints[0] if complaints else []


def _typed_dict(value: Any, kind: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {value!r:.60} is no object ({kind.__name__})"]
    hints = typing_extensions.get_type_hints(kind)
    errors = [f"{path}.{name}: unknown to {kind.__name__}" for name in value if name not in hints]
    errors += [f"{path}.{name}: missing in {kind.__name__}" for name in kind.__required_keys__ if name not in value]
    return errors + [
        error for name, each in value.items() if name in hints for error in wrong(each, hints[name], f"{path}.{name}")
    ]


def _model(value: Any, kind: type[pydantic.BaseModel], path: str) -> list[str]:
    """A field goes by its alias on the wire; what the SDK fills in itself may be missing."""
    if not isinstance(value, dict):
        return [f"{path}: {value!r:.60} is no object ({kind.__name__})"]
    fields = {field.serialization_alias or field.alias or name: field for name, field in kind.model_fields.items()}
    errors = [f"{path}.{name}: unknown to {kind.__name__}" for name in value if name not in fields]
    required = [name for name, field in fields.items() if field.is_required()]
    errors += [f"{path}.{name}: missing in {kind.__name__}" for name in required if name not in value]
    return errors + [
        error
        for name, each in value.items()
        if name in fields
        for error in wrong(each, fields[name].annotation, f"{path}.{name}")
    ]


def _plain(value: Any, kind: Any, path: str) -> list[str]:
    if kind is type(None) or kind is None:
        right = value is None
    elif kind is float:
        right = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is int:
        right = isinstance(value, int) and not isinstance(value, bool)
    elif kind in (str, bool, list, dict):
        right = isinstance(value, kind)
    elif kind is bytes:
        right = isinstance(value, str)  # base64 on the wire
    else:
        return [f"{path}: {value!r:.60} is no {kind}"]  # a file or an object of the SDK: never JSON
    return [] if right else [f"{path}: {value!r:.60} is no {getattr(kind, '__name__', kind)}"]
