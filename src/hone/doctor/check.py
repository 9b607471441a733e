"""One line of `hone doctor`."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """One line of the table: `value` for people, `data` (plain JSON types, bytes and GFLOP/s) for programs."""

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    advice: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
