"""How numbers, intervals, sizes, durations and tables are written, wherever hone prints them; imports nothing heavy."""

import math


def figure(value: float, form: str) -> str:
    """A number as a table shows it; a ruined model's perplexity by its power of ten, not by 300 digits.

    >>> figure(6475.77, ",.2f"), figure(1.2e304, ",.2f")
    ('6,475.77', '1e+304')
    """
    return f"{value:{form}}" if abs(value) < 1e9 else f"{value:.0e}"


def with_bounds(value: float, interval: list[float] | None, form: str, alone: str = "") -> str:
    """'3.12 [3.01, 3.24]'; `alone` behind a value without an interval."""
    bounds = f"[{figure(interval[0], form)}, {figure(interval[1], form)}]" if interval else alone
    return f"{figure(value, form)} {bounds}".rstrip()


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned on the left, two spaces apart."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def printable(text: str) -> str:
    """Control characters spelled out: model output must not drive the terminal.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def size(n_bytes: float) -> str:
    """
    >>> size(2_464_100_352), size(81_000_000)
    ('2.46 GB', '81 MB')
    """
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """
    >>> duration(3725.2), duration(33.8)
    ('1 h 02 min', '34 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, s = divmod(math.floor(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {s:02d} s"
