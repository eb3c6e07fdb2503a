"""The quick part's sample of a large product: stable, spread over its families, and never empty."""

from __future__ import annotations

import pytest

from tests.sampling import sample

pytest_plugins = ["pytester"]

CASES = [f"{vendor}/case-{number}" for vendor in ("anthropic", "google") for number in range(50)]


def test_a_sample_is_one_in_so_many_of_each_family() -> None:
    """No vendor is left out because its recordings are few."""
    chosen = sample([*CASES, "groq/only", "one", "two", "three"], 10)
    families = [name.partition("/")[0] for name in chosen if "/" in name]
    assert {family: families.count(family) for family in families} == {"anthropic": 5, "google": 5, "groq": 1}
    assert len(chosen & {"one", "two", "three"}) == 1


def test_a_rate_of_one_is_everything_and_nothing_stays_nothing() -> None:
    """So the mark can stay where the rate is in question."""
    assert sample(CASES, 1) == set(CASES)
    assert sample([], 8) == set()


def test_a_sample_depends_on_the_names_alone() -> None:
    """Not on their order, and a new case replaces at most one other."""
    chosen = sample(CASES, 10)
    assert sample(reversed(CASES), 10) == chosen
    for number in range(20):
        assert len(chosen - sample([*CASES, f"google/new-{number}"], 10)) <= 1


def test_both_parts_together_run_each_case_once(pytester: pytest.Pytester) -> None:
    """The sample in the quick part, the others in the slow one; what is not sampled stays where it was."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers =\n  slow:\n  sampled:")
    pytester.makeconftest("from tests.conftest import pytest_collection_modifyitems")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.sampled(4)
        @pytest.mark.parametrize("case", [str(case) for case in range(10)])
        def test_product(case):
            pass

        def test_rule():
            pass
    """)
    quick = pytester.inline_run("-m", "not slow").listoutcomes()[0]
    slow = pytester.inline_run("-m", "slow").listoutcomes()[0]
    names = {report.nodeid.partition("::")[2] for report in [*quick, *slow]}
    assert (len(quick), len(slow)) == (3 + 1, 7)
    assert names == {"test_rule", *(f"test_product[{case}]" for case in range(10))}
