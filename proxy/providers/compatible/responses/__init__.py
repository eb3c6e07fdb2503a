"""Translates: OpenAI's Responses API as several servers speak it: input items, output items, named events."""
