"""Translates: experiments: variants for units, and what outcomes prove."""
