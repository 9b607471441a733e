"""Serving: models behind OpenAI's API, each answer with the fingerprint of what gave it."""
