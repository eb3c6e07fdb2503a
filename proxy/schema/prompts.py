"""Values: stored prompts, their versions and labels, and how a request uses them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

PREFIX = "prompt:"  # of a model's name: `prompt:extraction_v1@production`
PRODUCTION = "production"  # the label of uses that name none
LATEST = "latest"  # names the newest version; no label


class PromptUse(Struct, frozen=True):
    """The stored prompt that a request asks for. `version` and `label` None: the label `production`, or the newest
    version if there is no such label.

    `leaves_model`: the request names no model of its own. `lacks`: fields that its endpoint does not have.
    """

    id: str
    version: int | None = None
    label: str | None = None
    variables: dict[str, Any] = {}
    leaves_model: bool = False
    lacks: tuple[str, ...] = ()


class UsedPrompt(Struct, frozen=True):
    """The stored prompt of a call and its variant of an experiment, for the call's row. All None: neither.

    `label`: the one that led to the version. `unit`: a hash of the user or session that the variant was chosen for.
    """

    prompt: str | None = None
    version: int | None = None
    label: str | None = None
    experiment: str | None = None
    variant: str | None = None
    unit: str | None = None


NOT_USED = UsedPrompt()


class Unit(Struct, frozen=True):
    """Whom an experiment assigns a variant to; None or empty: unknown. `conversation`: a hash of how it begins."""

    key: str | None = None
    user: str | None = None
    session: str | None = None
    conversation: str = ""


class Variant(Struct, frozen=True):
    """What an experiment chose. None: the experiment does not vary it. Any other value replaces the request's.

    `unit`: a hash of the user or session that it was chosen for. `prompt`: the experiment's own, for requests that name
    the experiment alone. `parameters`: fields of the body. `ensemble`: keys of an ensemble, as in `routing.ensemble`.
    """

    experiment: str
    name: str
    unit: str | None = None
    prompt: str | None = None
    version: int | None = None
    model: str | None = None
    parameters: dict[str, Any] = {}
    ensemble: dict[str, Any] | None = None


class PromptVersion(Struct, frozen=True, kw_only=True):
    """One version; it never changes. `messages`: of a chat, with `{name}` for each variable. `template`: the text
    if it was saved as one, which is a message of the user. `model` to `response_format` are defaults for what a
    request leaves out. Times are Unix nanoseconds.
    """

    version: int
    messages: list[dict[str, Any]]
    template: str | None = None
    variables: tuple[str, ...] = ()
    model: str | None = None
    parameters: dict[str, Any] = {}
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    notes: str | None = None
    created_ns: int = 0
    archived_ns: int | None = None


class PromptHead(Struct, frozen=True, kw_only=True):
    """The mutable part of a prompt. `revision` counts its changes, for optimistic concurrency.

    `labels`: name -> version. `live`: the versions that are not archived, in order.
    """

    id: str
    name: str
    labels: dict[str, int] = {}
    live: tuple[int, ...] = ()
    revision: int = 1
    created_ns: int = 0
    archived_ns: int | None = None

    @property
    def latest(self) -> int | None:
        """The newest version that can be used."""
        return self.live[-1] if self.live else None


class LabelMove(Struct, frozen=True):
    """A label was put on a version, taken off (`version` None), by the key `by` (None: without a key)."""

    label: str
    version: int | None
    moved_ns: int
    by: str | None = None
    note: str | None = None


class Brought(Struct, frozen=True):
    """A prompt as imported from a file: its versions in order, and for each label the index of its version."""

    id: str
    name: str
    versions: list[PromptVersion]
    labels: dict[str, int] = {}
