"""Rules for all tests: property tests try the same examples in every run, and none fails because the machine is busy;
of a test marked `sampled(rate)` the quick part runs one case in `rate` and the slow part the others.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.sampling import sample

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is left out of a sample as slow, before `-m` selects."""
    products: dict[tuple[str, int], dict[str, pytest.Item]] = {}
    for item in items:
        if (mark := item.get_closest_marker("sampled")) is not None:
            test, _, case = item.nodeid.partition("[")
            products.setdefault((test, *mark.args), {})[case] = item
    for (_, rate), cases in products.items():
        chosen = sample(cases, rate)
        for case, item in cases.items():
            if case not in chosen:
                item.add_marker(pytest.mark.slow)
