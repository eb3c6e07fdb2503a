"""Orchestrates: several asks, one answer; one file per strategy."""
