"""Boxes for programs nobody has read: bubblewrap, seccomp, limits; candidate and tests apart."""
