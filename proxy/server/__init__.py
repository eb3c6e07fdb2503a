"""Performs I/O: the process, its HTTP interface and everything that it is built from."""
