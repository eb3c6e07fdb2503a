"""Rules for all tests: property tests try the same examples in every run, and none fails because the machine is busy;
of a test marked `sampled(rate)` the quick part runs about one case in `rate`, the slow part the others.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable

import pytest
from hypothesis import HealthCheck, settings

from tests.sampling import sample

settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what a sample leaves out, before `-m` selects."""
    products: dict[tuple[str, int], dict[str, pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and (mark := item.get_closest_marker("sampled")) is not None:
            test, _, case = item.nodeid.partition("[")
            products.setdefault((test, *mark.args), {})[case] = item
    for (_, rate), cases in products.items():
        chosen = sample({case: traits(case, item) for case, item in cases.items()}, rate)
        for case in cases.keys() - chosen:
            cases[case].add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """The tests and their libraries live to the end: a garbage collection that looks at them takes half a second."""
    gc.collect()
    gc.freeze()


def traits(case: str, item: pytest.Function) -> set[Hashable]:
    """The value of each parameter (cases that share one share the object), and of a file in a folder that folder."""
    values: set[Hashable] = {(name, id(value)) for name, value in item.callspec.params.items()}
    return values | {case.partition("/")[0]} if "/" in case else values
