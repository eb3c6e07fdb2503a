"""Performs I/O: clients of a running server, such as the conformance checks."""
