"""Where conversations are warm, and what other workers hear of it, on clocks that are moved by hand."""

from __future__ import annotations

from proxy.providers.openai import OpenAI
from proxy.routing.decision import Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts
from proxy.routing.sticky import is_home
from proxy.routing.warm_sessions import MAX_SESSIONS, WarmSessions
from proxy.schema.records import StickyMove

A, B = "a/m", "b/m"
UNIX = 1_700_000_000.0
_NS = 1_000_000_000


class Worker:
    """One worker's sessions, warm for 100 s."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.sessions = WarmSessions(lambda: self.now_s, lambda: UNIX + self.now_s)
        self.sessions.ttl_s = 100

    def tells(self) -> list[tuple[str, str, int]]:
        return [(move.session, move.model, move.tokens) for move in self.sessions.take_untold()]

    def move(self, model: str, session: str = "s", tokens: int = 5, for_s: float = 100) -> StickyMove:
        return StickyMove(session, model, tokens, int((UNIX + self.now_s + for_s) * _NS))


def test_a_conversation_at_home_is_nobodys_news() -> None:
    """All workers would choose the same; also on its later turns."""
    worker = Worker()
    worker.sessions.note("s", A, 10)
    worker.sessions.note("s", A, 20, is_home=False)  # where it is warm is no longer where a new one would go
    assert (worker.sessions.of("s"), worker.tells()) == ((A, 20), [])


def test_a_conversation_that_begins_elsewhere_or_moves_is_told_once() -> None:
    """Also when it moves back; and again after a quarter of its lifetime, so that it does not end too early."""
    worker = Worker()
    worker.sessions.note("s", B, 10, is_home=False)
    assert worker.tells() == [("s", B, 10)]
    worker.now_s += 24
    worker.sessions.note("s", B, 20, is_home=False)
    assert worker.tells() == []
    worker.now_s += 1
    worker.sessions.note("s", B, 30, is_home=False)
    assert worker.tells() == [("s", B, 30)]
    worker.sessions.note("s", A, 40)
    assert worker.tells() == [("s", A, 40)]
    worker.now_s += 101
    worker.sessions.note("s", A, 50)  # it had cooled down: a new beginning
    assert worker.tells() == []


def test_what_others_told_holds_for_as_long_as_they_said() -> None:
    """It replaces what was known before; the end of its lifetime is that of the last turn anywhere."""
    worker = Worker()
    worker.sessions.note("s", A, 10)
    worker.sessions.learn([worker.move(B, for_s=40)])
    assert (worker.sessions.of("s"), worker.tells()) == ((B, 5), [])
    worker.now_s += 39
    worker.sessions.note("s", B, 20)
    assert worker.tells() == [("s", B, 20)]
    worker.now_s += 99
    assert worker.sessions.of("s") == (B, 20)
    worker.now_s += 1
    assert worker.sessions.of("s") is None
    worker.sessions.learn([worker.move(B, for_s=0), worker.move(B, session="t", for_s=10_000)])
    assert worker.sessions.of("s") is None
    worker.now_s += 100  # never longer than a turn of one's own would count
    assert worker.sessions.of("t") is None


def test_news_of_ones_own_is_newer_than_what_others_told_before() -> None:
    """Until it is told."""
    worker = Worker()
    worker.sessions.note("s", B, 10, is_home=False)
    worker.sessions.learn([worker.move(A)])
    assert worker.sessions.of("s") == (B, 10)
    told = worker.sessions.take_untold()
    worker.sessions.give_back(told)  # the database did not answer
    worker.sessions.learn([worker.move(A)])
    assert (worker.sessions.of("s"), worker.tells()) == ((B, 10), [("s", B, 10)])
    worker.sessions.learn([worker.move(A)])
    assert worker.sessions.of("s") == (A, 5)


def test_what_waits_to_be_told_is_bounded() -> None:
    """While the database is down, the oldest go."""
    worker = Worker()
    for number in range(2 * MAX_SESSIONS):
        worker.sessions.note(str(number), B, 1, is_home=False)
    told = worker.tells()
    assert (len(told), told[-1][0]) == (MAX_SESSIONS, str(2 * MAX_SESSIONS - 1))


def test_home_is_what_every_worker_would_choose() -> None:
    """Not where a measurement of this worker, exploration or ill health decided."""
    first, second = (Deployment(name, OpenAI(), "m", None) for name in "ab")
    route, both = Route("auto", (first, second)), (Candidate(first), Candidate(second))
    assert is_home(Decision(route, Facts(), candidates=both), A)
    assert not is_home(Decision(route, Facts(), candidates=both), B)
    assert not is_home(Decision(route, Facts(), candidates=both, is_shared=False), A)
    resting = (Candidate(first), Candidate(second, rests="it rests"))
    assert not is_home(Decision(route, Facts(), candidates=resting), A)
