"""Performs I/O: the HTTP surface: Litestar handlers and wire formats, no logic."""
