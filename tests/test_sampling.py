"""The quick part's sample of a large product: the same everywhere, with each kind of case in it, and never empty."""

from __future__ import annotations

import pytest

from tests.sampling import sample

pytest_plugins = ["pytester"]

FILES = {f"{vendor}/{number}": {vendor} for vendor in ("anthropic", "google", "groq") for number in range(40)}
PAIRS = {f"{mode}-{vendor}": {("mode", mode), ("vendor", vendor)} for mode in range(12) for vendor in range(7)}


def test_a_sample_is_one_case_in_so_many() -> None:
    """A rate of one is everything, and of nothing there is no sample."""
    assert len(sample(FILES, 10)) == 12
    assert len(sample(dict.fromkeys(FILES, frozenset()), 7)) == 18
    assert sample(FILES, 1) == FILES.keys()
    assert sample({}, 8) == set()


def test_each_trait_that_cases_share_is_in_the_sample() -> None:
    """Each vendor and each fault, however few of the pairs are tried."""
    assert {name.partition("/")[0] for name in sample(FILES, 1000)} == {"anthropic", "google", "groq"}
    chosen = sample(PAIRS, 1000)
    assert set().union(*(PAIRS[name] for name in chosen)) == set().union(*PAIRS.values())
    assert len(chosen) < len(PAIRS) / 3


def test_a_sample_depends_on_the_cases_alone() -> None:
    """Not on their order, and a new case replaces at most one other."""
    chosen = sample(FILES, 10)
    assert sample(dict(reversed(FILES.items())), 10) == chosen
    assert all(len(chosen - sample({**FILES, f"google/new-{n}": {"google"}}, 10)) <= 1 for n in range(20))


def test_both_parts_together_run_each_case_once(pytester: pytest.Pytester) -> None:
    """The sample in the quick part, the others in the slow one; what is not sampled stays where it was."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers =\n  slow:\n  sampled:")
    pytester.makeconftest("from tests.conftest import pytest_collection_modifyitems")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.sampled(5)
        @pytest.mark.parametrize("case", [str(case) for case in range(4)])
        @pytest.mark.parametrize("stream", [False, True])
        def test_product(case, stream):
            pass

        def test_rule():
            pass
    """)
    quick = [report.nodeid for report in pytester.inline_run("-m", "not slow").listoutcomes()[0]]
    slow = [report.nodeid for report in pytester.inline_run("-m", "slow").listoutcomes()[0]]
    assert len(set(quick) | set(slow)) == len(quick) + len(slow) == 8 + 1
    assert len(slow) >= 3
    sampled = [name.partition("[")[2].rstrip("]").split("-") for name in quick if "[" in name]
    assert {value for pair in sampled for value in pair} == {"False", "True", *"0123"}
