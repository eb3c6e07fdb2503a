"""Tests, in the shape of `proxy/`; `upstream/` is the fake provider they talk to."""
