"""Performs I/O: state that outlives the process. SQL lives in this package and nowhere else."""
