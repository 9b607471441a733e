"""Other formats in and out: written, read back, compared, renamed."""
