"""Orchestrates: the cost of calls, and the spend."""
