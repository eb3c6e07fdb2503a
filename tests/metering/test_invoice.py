"""A vendor's bill is read strictly, and compared per day and model."""

from __future__ import annotations

import pytest

from proxy.metering.invoice import BadInvoice, Difference, compared, read_invoice

OPENAI = b"""start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id
1767225600,1767312000,2026-01-01T00:00:00+00:00,2026-01-02T00:00:00+00:00,0.5,usd,"gpt-4o-2024-08-06, input",p
1767225600,1767312000,2026-01-01T00:00:00+00:00,2026-01-02T00:00:00+00:00,0.25,usd,"gpt-4o-2024-08-06, output",p
"""
ANTHROPIC = b"""usage_date_utc,model,workspace,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type
2026-01-01,claude-sonnet-5-5,Default,message,0-200k,input_no_cache,1.000000001,1.1,token
2026-01-01,claude-sonnet-5-5,Default,message,0-200k,output,2,2.2,token
"""


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (OPENAI, {("2026-01-01", "gpt-4o-2024-08-06"): 750_000_000}),
        (ANTHROPIC, {("2026-01-01", "claude-sonnet-5-5"): 3_000_000_001}),
        (b"\xef\xbb\xbfDate,Model,Cost\r\n2026-01-01,m,$1.5\r\n", {("2026-01-01", "m"): 1_500_000_000}),
        (b"date,model,cost\n2026-01-01T23:00:00-05:00,m,-1\n", {("2026-01-02", "m"): -1_000_000_000}),
        (b"date,model,cost\n", {}),
    ],
)
def test_exports_of_vendors_are_read(data: bytes, found: dict[tuple[str, str], int]) -> None:
    """By UTC day and model, exact to the nano-dollar."""
    assert read_invoice(data) == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"date,model,cost,discount\n2026-01-01,m,1,2\n", "unknown columns: discount"),
        (b"date,model\n2026-01-01,m\n", "there is no column for the cost. Known names: cost, cost_usd"),
        (b"", "there is no column for the date"),
        (b"date,model,cost\n2026-13-01,m,1\n", "line 2: expected a date like 2026-11-22, not '2026-13-01'"),
        (b"date,model,cost\n2026-01-01,m,NaN\n", "line 2: expected an amount in US dollars"),
        (b"date,model,cost\n2026-01-01,m\n", "line 2: expected an amount"),
        (b"date,model,cost,currency\n2026-01-01,m,1,EUR\n", "line 2: expected US dollars, not 'EUR'"),
        (b"date,model,cost\n\xff\xfe,m,1\n", "not a CSV file"),
    ],
)
def test_what_cannot_be_added_up_is_refused(data: bytes, said: str) -> None:
    """With the line, or the columns."""
    with pytest.raises(BadInvoice) as caught:
        read_invoice(data)
    assert said in str(caught.value)


def test_days_and_models_are_matched_with_provider_and_date() -> None:
    """What only one side has is shown as well."""
    ours = {
        ("d", "openai", "gpt-4o"): 5,
        ("d", "azure", "gpt-4o"): 2,
        ("d", "x", "other"): 1,
        ("e", "openai", "o3"): None,
    }
    billed = {("d", "gpt-4o-2024-08-06"): 9, ("e", "openai/o3"): 4, ("f", "o3"): 3}
    assert compared(ours, billed) == [
        Difference("d", "gpt-4o-2024-08-06", 7, 9),
        Difference("d", "other", 1, None),
        Difference("e", "openai/o3", 0, 4),
        Difference("f", "o3", None, 3),
    ]
