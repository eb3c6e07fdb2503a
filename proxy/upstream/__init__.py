"""Performs I/O: the only HTTP to providers."""
