"""Several asks, one answer: one file per strategy."""
