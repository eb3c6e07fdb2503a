"""Measures what one request costs: `scripts/bench [--quick] [--peers]` from the top of the checkout."""
