"""Orchestrates: the pages of the dashboard, rendered here and complete without JavaScript."""
