"""Performs I/O: what must outlive the process. SQL lives in this package and nowhere else."""
