"""Values: the live objects of one configuration."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from proxy.config import Config
from proxy.metering.charges import Budgets
from proxy.metering.ledger import Ledger
from proxy.pipeline.admission import KeyPolicies
from proxy.pipeline.call_text import StoredTexts
from proxy.pipeline.experiments import LiveExperiments
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.sharing import Sharing
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.routing.allowed import Views
from proxy.routing.names import Names
from proxy.sites.match import Matcher
from proxy.upstream.model_discovery import ModelDiscovery
from proxy.upstream.upstream import Upstream


class Runtime(Struct, frozen=True):
    """The live objects of one configuration; `ledger` is the server's own."""

    config: Config
    views: Views
    policies: KeyPolicies
    pipeline: Pipeline
    sharing: Sharing
    ledger: Ledger
    budgets: Budgets
    upstreams: Mapping[str, Upstream]
    lists: ModelDiscovery
    texts: StoredTexts
    prompts: StoredPrompts
    experiments: LiveExperiments
    sites: Matcher

    @property
    def names(self) -> Names:
        """The namespace at this moment."""
        return self.views.current()
