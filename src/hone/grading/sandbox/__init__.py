"""A sandbox for programs nobody has read: bubblewrap, seccomp, limits; candidate and tests in one each.

Two things can go wrong that say nothing of the candidate; both are exceptions, and never a verdict.
"""

from hone.errors import HoneError


class IsolationError(HoneError):
    """Programs cannot be run safely here; nothing was run."""


class HarnessError(HoneError):
    """A sandbox did not start, or the tests themselves are broken."""
