"""Translates: the catalog of site templates, and which of them fits instructions and URLs. Pure."""
