"""Generated programs against unit tests, in a sandbox."""
