"""Runs a server under mixed load for a long time: `scripts/soak [--minutes 30]` from the top of the checkout."""
