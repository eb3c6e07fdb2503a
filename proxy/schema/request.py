"""Values: what the requests of all endpoints have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from msgspec import UNSET, Struct, structs

from proxy.schema.hints import NO_HINTS, Hints
from proxy.schema.prompts import PromptUse

if TYPE_CHECKING:
    from proxy.schema.chat import Message


OWN_METADATA = "routing."  # how the names of hints in `metadata` begin
NOBODY = ""  # the dialect of a body that no vendor gets unchanged


class NativeBody(Struct, frozen=True):
    """A request in one vendor's own wire shape, as the client sent it.

    A deployment whose provider is of type `dialect` gets `body` at `path`, below the root of its API, with the model's
    name replaced and `changes` made; every other deployment gets the translated request. `headers`: those of the client
    that go with it.

    `changes`: member of the body -> its new value, UNSET to remove it. `limit`: the member that limits the output.
    `adapted`: changes that are reported. `lost`: fields that no translation carries, reported as dropped. `only_here`:
    path of a field -> what it asks for that no other vendor has: those refuse the request. `needed`: field of the
    translated request -> the same, where a vendor would drop it. `fetches`: the vendor may search or read beside it.
    `passes`: the vendor's answer goes to the client as it is, too. `prompts`: of a body that asks several questions.
    """

    dialect: str
    path: str
    body: bytes
    headers: dict[str, str] = {}
    changes: dict[str, Any] = {}
    limit: str = "max_tokens"
    adapted: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    only_here: dict[str, str] = {}
    needed: dict[str, tuple[str, str]] = {}
    fetches: bool = False
    passes: bool = True
    prompts: tuple[Any, ...] = ()

    def changed(self, changes: dict[str, Any]) -> NativeBody:
        """The same with further changes."""
        return structs.replace(self, changes={**self.changes, **changes})

    def without_hints(self, fields: dict[str, Any]) -> NativeBody:
        """The same without the proxy's own fields. `fields`: the members of the body."""
        changes: dict[str, Any] = {"routing": UNSET} if "routing" in fields else {}
        metadata = fields.get("metadata")
        if isinstance(metadata, dict) and any(name.startswith(OWN_METADATA) for name in metadata):
            rest = {name: value for name, value in metadata.items() if not name.startswith(OWN_METADATA)}
            changes["metadata"] = rest or UNSET
        return self.changed(changes) if changes else self


class Request(Struct, frozen=True, kw_only=True):
    """The common part of all endpoints' requests. Differences between endpoints are methods, never type checks.

    `fields` is the client's body without known fields that are null and without the proxy's own; the other attributes
    are validated views of it. Providers forward `fields` and never change it. `hints`: what the client says about the
    routing. `stored`: the stored prompt that it asks for, until that is rendered. `size` bounds the bytes of the
    prompt: the body plus the proxy's additions. `site`: the site and the task whose prompt and schema are among these.
    `references`: names of earlier answers that it refers to, which must be inserted first. `other_api`: the vendor's
    first API has refused it.
    """

    task_type: ClassVar[str | None] = None
    stream: bool = False
    n: int = 1

    model: str
    hints: Hints = NO_HINTS
    site: str | None = None
    native: NativeBody | None = None
    stored: PromptUse | None = None
    size: int = 0
    references: tuple[str, ...] = ()
    other_api: bool = False
    fields: dict[str, Any]

    @property
    def prompts(self) -> int:
        """The number of prompts or messages, each of which adds template overhead."""
        raise TypeError(f"{type(self).__name__} does not count its prompts")

    @property
    def messages(self) -> Sequence[Message]:
        """The messages of a conversation; only chats have any."""
        return ()

    @property
    def may_race(self) -> bool:
        """True if two deployments may be asked for the same answer, and the first to arrive is taken."""
        return False

    @property
    def repeated(self) -> str:
        """A text that the vendor reads with every prompt, in addition to `texts`."""
        return ""

    def own_path(self, param: str) -> str:
        """The client's own name of the field that an error names."""
        return param

    def texts(self) -> list[str]:
        """The texts that the vendor reads, for token counting."""
        raise TypeError(f"{type(self).__name__} does not list its texts")

    def resolved(self, answers: Mapping[str, bytes]) -> Self:
        """The request with the earlier answers that it refers to. Raises BadRequest if one is missing."""
        return self

    def question(self) -> str | None:
        """The text of the last user message."""
        return None

    def output_limit(self, otherwise: int | None) -> int | None:
        """The token limit of the answer over all choices, with `otherwise` as the default. None: no limit."""
        return 0

    def capped(self, max_tokens: int) -> tuple[Self, list[str]]:
        """The request limited to `max_tokens` of output per choice, and the names of the changed fields."""
        return self, []

    def apart(self) -> list[Self]:
        """One request for each question that is asked by itself; nearly all requests ask one."""
        return [self]

    def without_offers(self) -> tuple[Self, list[str]]:
        """The request without optional work at the vendor that nothing in it demands, and the names of the changed
        fields: the cost of that work has no bound.
        """
        return self, []

    def parts(self, limits: Iterable[int | None]) -> list[Self]:
        """The request in parts that every candidate accepts. `limits`: the candidates' limits on inputs per request."""
        return [self]

    def joined(self, answers: Sequence[Any]) -> Any:
        """One answer from the answers to `parts`."""
        return answers[0]

    def check(self, response: Any) -> None:
        """Raises UpstreamError for an answer that does not match the request."""
