"""Faster steps, each checked against the plain computation before it is used."""
