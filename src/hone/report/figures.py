"""The curves of a training as small inline drawings (SVG by matplotlib), coloured by the page they are in.

matplotlib is drawn without its global state (no pyplot), its text stays text, and equal numbers give equal bytes.
Without matplotlib there are no drawings: `drawable()` says so, and the numbers are shown as a table.

>>> loss_curve(curves, base, tuned).svg[:4]      # doctest: +SKIP
'<svg'
"""

import importlib.util
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.report.blocks import Figure
from hone.results import Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (3.5, 2.3)  # inches: drawn at the width of a phone, so that its text is as large as the page's there
# Colours that stand for variables of the page's style sheet: light or dark is the reader's choice, not ours.
INK, MUTED, LINES, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINES: "--line", FIRST: "--first", SECOND: "--second"}
LOOK = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hone",
    "font.size": 8,
    "axes.edgecolor": LINES,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "xtick.color": LINES,
    "ytick.color": LINES,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "lines.linewidth": 1.4,
    "text.color": INK,
}


@dataclass(frozen=True)
class Curves:
    """metrics.jsonl as columns, NaN where a line lacks a number.

    tokens, and one array for each name of `training`: a point a log step. held_out: name -> (tokens, values).
    """

    tokens: np.ndarray
    training: dict[str, np.ndarray]
    held_out: dict[str, tuple[np.ndarray, np.ndarray]]


def drawable() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves_of(metrics: list[dict[str, Any]]) -> Curves:
    """The log lines of the training and of its held-out measurements, which know only their step.

    Their tokens are read off the line through (step, tokens) of the log lines, its ends drawn on.
    """
    lines = [line for line in metrics if "loss" in line and line.get("tokens") is not None]
    steps, tokens = _column(lines, "step"), _column(lines, "tokens")
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_s")
    held_out = {}
    for name in sorted({key.removeprefix("eval_") for line in metrics for key in line if key.startswith("eval_")}):
        measured = [line for line in metrics if line.get(f"eval_{name}") is not None]
        if measured and len(lines):
            at = _tokens_at(_column(measured, "step"), steps, tokens)
            held_out[name] = (at, _column(measured, f"eval_{name}"))
    return Curves(tokens, {name: _column(lines, name) for name in names}, held_out)


def _column(lines: list[dict[str, Any]], name: str) -> np.ndarray:
    values = (line.get(name) for line in lines)
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _tokens_at(at: np.ndarray, steps: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    known, counts = np.concatenate([[0.0], steps]), np.concatenate([[0.0], tokens])
    slope = (counts[-1] - counts[-2]) / max(known[-1] - known[-2], 1.0)
    return np.interp(at, known, counts) + np.maximum(at - known[-1], 0) * slope


def loss_curve(curves: Curves, base: Level | None, tuned: Level | None) -> Figure:
    """Training loss over tokens; held-out loss before, during and after, with intervals where it has them."""
    with _drawing("loss", SIZE) as (axes, done):
        _line(axes, curves.tokens, curves.training["loss"], FIRST, "training")
        at, values = curves.held_out.get("loss", (np.zeros(0), np.zeros(0)))
        end = max([*curves.tokens[-1:], *at[-1:]], default=0.0)
        ends = [(x, found) for x, found in ((0.0, base), (end, tuned)) if found is not None]
        points = sorted([*zip(at, values), *((x, found.value) for x, found in ends)])
        if points:
            x, y = zip(*points)
            axes.plot(x, y, color=SECOND, marker="o", markersize=3.5, label="held out", linewidth=1.0)
        for place, found in ends:
            if found.bounds:
                axes.plot([place, place], found.bounds, color=SECOND, linewidth=1.0, marker="_", markersize=5)
        axes.legend(loc="upper right", handlelength=1.2)
    return Figure("Loss, nats a token", done[0])


def held_out_curve(curves: Curves, name: str, title: str) -> Figure:
    """A held-out measure over tokens."""
    at, values = curves.held_out[name]
    with _drawing(name, SIZE) as (axes, done):
        axes.plot(at, values, color=SECOND, marker="o", markersize=3.5, linewidth=1.0)
    return Figure(title, done[0])


def training_curve(curves: Curves, name: str, title: str) -> Figure:
    """A number of the log lines over tokens, from zero up."""
    with _drawing(name, SIZE) as (axes, done):
        _line(axes, curves.tokens, curves.training[name], FIRST, None)
        top = np.nanmax(curves.training[name], initial=0.0)
        axes.set_ylim(0, 1.08 * top if top > 0 else 1.0)
    return Figure(title, done[0])


def _line(axes: "Axes", x: np.ndarray, y: np.ndarray, colour: str, label: str | None) -> None:
    """A line; its points too where they are few, or it would be nothing for one of them."""
    axes.plot(x, y, color=colour, label=label, marker="." if len(x) < 8 else "", markersize=4)


@contextmanager
def _drawing(name: str, size: tuple[float, float]) -> Iterator[tuple["Axes", list[str]]]:
    """Axes over tokens to draw on; the SVG is in the list afterwards."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    done: list[str] = []
    with mpl.rc_context(LOOK):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.subplots()
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        axes.set_xlabel("tokens")
        axes.set_axisbelow(True)
        yield axes, done
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])  # room for a mark at 0
        text = io.StringIO()
        canvas.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        done.append(inlined(text.getvalue(), name))


def inlined(svg: str, name: str) -> str:
    """An SVG file as part of a page: scaled by it, coloured by its variables, its ids its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()
