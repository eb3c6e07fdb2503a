"""Performs I/O: what talks to a server from outside."""
