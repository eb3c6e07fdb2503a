"""Translates: the wire shapes that clients speak, one file per endpoint."""
