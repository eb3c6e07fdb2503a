"""Performs I/O: the HTTP clients that reach providers, behind one contract (`transports.base`)."""
