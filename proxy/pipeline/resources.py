"""Values: the objects that all calls of one configuration share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, field
from msgspec.structs import force_setattr

from proxy.metering.charges import NO_BUDGETS, Budgets
from proxy.metering.ledger import Ledger
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.holds import Holds
from proxy.pipeline.off_loop import OffLoop
from proxy.routing.board import HealthBoard
from proxy.routing.settings import RouterConfig
from proxy.routing.stored_facts import NOTHING, Mentioned
from proxy.sites.catalog import Catalog
from proxy.sites.match import Matcher
from proxy.upstream.upstream import Upstream

NO_SITES = Matcher(Catalog({}))


class Resources(Struct, frozen=True):
    """Shared by every call of one configuration.

    `observe` receives each ended attempt. `random` returns the jitter factor in [0, 1): the fraction of the
    back-off ceiling to sleep. The first ceiling is `backoff_s`, and it doubles. `board` outlives the configuration.
    `begin_trace` is called with each call and its headers; None: calls are not traced.
    """

    upstreams: Mapping[str, Upstream]
    ledger: Ledger
    off_loop: OffLoop
    config_version: str
    random: Callable[[], float]
    observe: Callable[[Attempt], None] = lambda attempt: None
    backoff_s: float = RouterConfig().retry_delay_s
    router: RouterConfig = RouterConfig()
    board: HealthBoard = field(default_factory=HealthBoard)
    mentioned: Mentioned = NOTHING  # by the rules
    budgets: Budgets = NO_BUDGETS
    sites: Matcher = NO_SITES
    begin_trace: Callable[[Call, Mapping[str, str]], object] | None = None
    holds: Holds = None  # type: ignore[assignment]  # built from the fields above

    def __post_init__(self) -> None:
        force_setattr(self, "holds", Holds(self.ledger, self.budgets, self.config_version))
