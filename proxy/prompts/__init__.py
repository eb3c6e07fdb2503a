"""Translates: stored prompts: templates, versions, and what a request makes of them. Pure."""
