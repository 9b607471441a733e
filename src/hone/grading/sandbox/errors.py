"""What can go wrong that says nothing of the candidate."""

from hone.errors import HoneError


class IsolationError(HoneError):
    """Programs cannot be run safely here; nothing was run."""


class HarnessError(HoneError):
    """A box did not start, or the tests themselves are broken: never a verdict on the candidate."""
