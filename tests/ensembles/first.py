"""Values: an ensemble of the simplest kind, to test what all of them share."""

from __future__ import annotations

from contextlib import aclosing

from proxy.ensembles.base import Decided, Ensemble, Panel, Reply, missed


class First(Ensemble, frozen=True, kw_only=True, tag_field="strategy", tag="first"):
    """The answer of the first member, in the order of the seats. `enough`: stop as soon as so many answered. `last`:
    a name that answers instead, once the members did.
    """

    enough: int | None = None
    last: str | None = None

    def followers(self) -> list[str]:
        return [] if self.last is None else [self.last]

    async def decide(self, panel: Panel) -> Decided:
        replies: list[Reply] = []
        needed = self.quorum(len(panel.seats))
        async with aclosing(panel.replies(panel.seats)) as coming:
            async for reply in coming:
                replies.append(reply)
                answered = [each for each in replies if each.response is not None]
                panel.progress(f"{len(answered)} of {len(panel.seats)} answered")
                if len(answered) == self.enough:
                    break
        if len(answered) < needed:
            raise missed(panel, replies, needed)
        report = {"confidence": len(answered) / len(panel.seats)}
        if self.last is not None:
            final = await panel.stream(self.last, panel.request, "final")
            if final.error is not None:
                raise final.error
            return Decided(final.response, report, final.attempts)
        chosen = min(answered, key=lambda each: each.seat.index if each.seat else 0)
        return Decided(chosen.response, report, chosen.attempts)


STRATEGIES: dict[str, type[Ensemble]] = {"first": First}
