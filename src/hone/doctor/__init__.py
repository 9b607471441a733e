"""What this machine can do: `hone doctor`."""
