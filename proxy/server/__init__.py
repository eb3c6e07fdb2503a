"""Performs I/O: the process, its front door and everything it is wired from."""
