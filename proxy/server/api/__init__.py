"""The HTTP surface: Litestar handlers and wire formats, no logic."""
