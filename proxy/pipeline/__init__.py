"""Orchestrates: one request from admission to settlement."""
