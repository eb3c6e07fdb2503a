"""Translates: the catalog of site templates, and the match of instructions and URLs to one of them. Pure."""
