"""The commands of `hone`, by what they are for; `cli.py` brings them together."""
