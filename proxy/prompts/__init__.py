"""Translates: stored prompts: templates, versions, and their use in requests. Pure."""
