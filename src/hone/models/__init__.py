"""Models: by name, by folder, from scratch; which of their parameters train."""
