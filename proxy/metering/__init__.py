"""Orchestrates: what calls cost and what was spent."""
