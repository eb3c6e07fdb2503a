"""Extracts prices from several pages at once, as JSON, and says what it cost.

Needs a server (`proxy serve`); PROXY_BASE_URL names another address.
"""

from __future__ import annotations

import asyncio
import json
import os

from proxy import MultiModelAPI, MultiModelError

PAGES = {
    "shop-1": "<h1>Blue mug</h1><span class=price>$12.50</span>",
    "shop-2": "<h1>Red mug</h1><b>9,99 EUR</b>",
    "shop-3": "<h1>Green mug</h1><p>Only 7 dollars today!</p>",
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "price": {"type": "number"}, "currency": {"type": "string"}},
    "required": ["name", "price", "currency"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "product", "strict": True, "schema": SCHEMA}}


async def product(api: MultiModelAPI, page: str) -> tuple[dict[str, object] | None, float]:
    """The product on a page, None if no model could answer; and the cost in USD."""
    try:
        answer = await api.generate(
            f"Extract the product from this page:\n{page}",
            task_type="extraction",
            response_format=FORM,
            max_cost_usd=0.01,
            tags=["prices"],
        )
    except MultiModelError as error:
        print(f"no answer: {error}")
        return None, 0.0
    return json.loads(answer.text), answer.cost or 0.0


async def main() -> None:
    base_url = os.environ.get("PROXY_BASE_URL", "http://127.0.0.1:8000")
    async with MultiModelAPI(base_url=base_url) as api:
        found = await asyncio.gather(*(product(api, page) for page in PAGES.values()))
    for name, (data, _) in zip(PAGES, found, strict=True):
        print(name, data)
    print(f"cost: {sum(cost for _, cost in found):.6f} USD")


if __name__ == "__main__":
    asyncio.run(main())
