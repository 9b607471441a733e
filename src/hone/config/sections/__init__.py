"""One file a section: the keys, each with its type, default, bounds and documentation."""
