"""Values: what usage can be grouped by. The store, the API, the command and docs/metering.md use this one list."""

from __future__ import annotations

from msgspec import Struct


class Dimension(Struct, frozen=True):
    """`in_rollups`: hourly sums keep it apart; usage by any other dimension reads single calls."""

    name: str
    about: str
    in_rollups: bool


DIMENSIONS: dict[str, Dimension] = {
    each.name: each
    for each in (
        Dimension("model", "The model that answered last, without its provider.", True),
        Dimension("provider", "The provider of that model.", True),
        Dimension("key", "The name of the caller's key.", True),
        Dimension("rule", "The routing rule that matched.", True),
        Dimension("task", "The task that the request was classified as.", True),
        Dimension("strategy", "The strategy that ranked the candidates, or that of the ensemble.", False),
        Dimension("ensemble", "The ensemble that answered; empty for other calls.", False),
        Dimension("prompt", "The stored prompt that was used; empty for other calls.", False),
        Dimension("experiment", "The experiment that the call took part in; empty for other calls.", False),
        Dimension("variant", "The variant of the experiment that the call got.", False),
        Dimension("tag", "The client's tags. A call with two tags counts in the group of each.", False),
        Dimension("session", "The session or conversation that the client named.", False),
        Dimension("agent", "The agent within a session that the client named.", False),
        Dimension("hour", "The hour in which the call began.", True),
        Dimension("day", "The day in which the call began, in the time zone `tz`.", True),
    )
}
