"""Orchestrates: which deployments answer to a name."""
