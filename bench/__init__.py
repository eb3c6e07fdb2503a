"""Measures what one request costs: `python -m bench` from the top of the checkout, with the tools of `scripts/test`."""
