"""The drawings: the right points, the page's colours, equal bytes, and no ids that clash."""

import re
from pathlib import Path

import numpy as np
import pytest

from hone.report.build import write_report
from hone.report.figures import curves_of, inlined
from written_run import write_run

LINES = [
    {"step": 10, "loss": 5.0, "tokens": 1000},
    {"step": 15, "eval_loss": 4.8, "eval_accuracy": 0.5},
    {"step": 20, "loss": None, "tokens": 3000, "grad_norm": 1.5},
    {"step": 25, "eval_loss": 4.6, "eval_accuracy": 0.75},
]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my-run")


def test_held_out_points_stand_where_the_tokens_were() -> None:
    curves = curves_of(LINES)
    assert curves.tokens.tolist() == [1000, 3000]
    np.testing.assert_array_equal(curves.training["loss"], [5.0, np.nan])
    np.testing.assert_array_equal(curves.training["grad_norm"], [np.nan, 1.5])
    at, values = curves.held_out["loss"]
    assert at.tolist() == [2000, 4000] and values.tolist() == [4.8, 4.6]  # between two lines, and past the last
    assert curves.held_out["accuracy"][1].tolist() == [0.5, 0.75]


def test_a_drawing_becomes_part_of_the_page() -> None:
    svg = (
        '<?xml ?><svg width="9pt" height="9pt" viewBox="0 0 9 9"><metadata>x</metadata><path id="a" stroke="#010101"/>'
    )
    svg += '<use href="#a" clip-path="url(#b)" width="3"/></svg>'
    assert inlined(svg, "loss") == (
        '<svg viewBox="0 0 9 9"><path id="loss-a" stroke="var(--ink)"/>'
        '<use href="#loss-a" clip-path="url(#loss-b)" width="3"/></svg>'
    )


def test_the_page_has_its_drawings_in_its_own_colours(run_folder: Path) -> None:
    pytest.importorskip("matplotlib")
    write_report(run_folder)
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 4
    colours = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", " ".join(drawings)))
    assert colours <= {"none", *(f"var(--{name})" for name in ("ink", "muted", "line", "first", "second"))}
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert {a or b for a, b in used} <= set(ids)


@pytest.mark.parametrize("content", ["", '{"step": 1, "loss": 3.0, "tokens": 5}\n', '{"step": 5, "eval_loss": 2.0}\n'])
def test_few_points_are_enough(run_folder: Path, content: str) -> None:
    (run_folder / "metrics.jsonl").write_text(content, encoding="utf-8")
    assert write_report(run_folder).notes == []
