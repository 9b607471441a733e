"""Measurements as files: what is written is read again, what is damaged is refused by name; and a task that hone does
not know is shown, compared, reported and repeated by what its files say of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.config.schema import Config
from hone.config.sections.model import ModelSection
from hone.errors import HoneError
from hone.report.build import write_report
from hone.report.card import model_card
from hone.report.folder import read_folder
from hone.results import (
    Comparison,
    Estimate,
    File,
    Items,
    ItemValues,
    Kind,
    Measurement,
    json_text,
    read,
    side_by_side,
    write,
)
from hone.results.repeat import Repeat
from hone.runs import Run
from hone.show import change_line, measurement_line
from hone.statistics.paired import Metric, compare_items, items_of, level
from hone.tables.results import comparison_text, repeat_text
from hone.tables.run import before_after
from hone.training.repeat import _over_runs
from written_run import CONTAMINATION, MEMORIZATION, compared, measured, of, programs, repeated

ONE = ItemValues(kind=Kind(heading="x", higher_is_better=True), numerator=[0.1, 1 / 3], weight=[1, 2])
FILES: list[File] = [
    measured(5.5, "text"), Items(item="row", metrics={"loss": ONE}), compared(of(-1.25, -1.4, -1.1), "better"),
    programs(True, False), CONTAMINATION, MEMORIZATION, repeated(),
]  # fmt: skip


@pytest.mark.parametrize("result", FILES, ids=lambda result: type(result).__name__)
def test_what_is_written_is_read_again_to_the_last_bit(tmp_path: Path, result: File) -> None:
    path = tmp_path / "file.json"
    write(path, result)
    assert read(type(result), path) == result
    assert type(result).model_validate_json(json_text(result)) == result
    assert json.loads(path.read_text())["version"] == 1


def test_what_has_not_been_measured_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.base is run.tuned is run.comparison is None and run.code() == (None, None, None)
    assert not run.has("tuned")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, expected 1"),
        ({"version": None}, "version None, expected 1"),
        ({"n_items": "many"}, "n_items"),
        ({"metrics": {"loss": {"value": 1.0}}}, r"metrics\.loss\.kind"),
        ({"perplexity": 3.0}, "perplexity: Extra inputs"),
        ({"n_tokens": float("inf")}, "n_tokens"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = Run(tmp_path)
    (tmp_path / "eval").mkdir()
    run.write("tuned", measured(5.0))
    path = tmp_path / "eval" / "tuned.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | change))
    with pytest.raises(HoneError, match="the content is not what was written"):
        assert run.tuned
    del found["seal"]  # one who writes such a file by hand has none
    path.write_text(json.dumps(found | change))
    with pytest.raises(HoneError, match=message) as caught:
        assert run.tuned
    assert caught.value.where == str(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', '{"version": 1}'])
def test_another_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "compare.json"
    path.write_text(content)
    with pytest.raises(HoneError) as caught:
        read(Comparison, path)
    assert caught.value.where == str(path)


def test_what_is_no_number_is_no_result() -> None:
    with pytest.raises(ValueError):
        Estimate(value=float("nan"))
    with pytest.raises(ValueError):
        Estimate(value=0.0, low=float("-inf"), high=1.0)


def test_estimates_are_mapped_and_turned_with_their_bounds() -> None:
    assert of(-1.0, -2.0, -0.5).negated() == of(1.0, 0.5, 2.0)
    assert of(3.0, 2.0).mapped(lambda x: x * x) == of(9.0, 4.0)
    assert of(3.0, 2.0).bounds is None


def test_samples_are_put_side_by_side_by_their_item() -> None:
    both = side_by_side(measured(5.5, "before"), measured(4.5, "after"))
    assert [(one.item, one.base, one.tuned) for one in both] == [(0, "before", "after")]
    assert [(one.base, one.tuned) for one in side_by_side(None, measured(4.5, "after"))] == [(None, "after")]


# ---- a task of somebody else's --------------------------------------------------------------------------------------

WIN_RATE = Kind(heading="win rate", higher_is_better=True, form=".2f", top=1.0)
MARGIN = Kind(heading="reward margin", unit="nats/pair", higher_is_better=True)


@pytest.fixture
def preferences(tmp_path: Path) -> Run:
    """A finished run of a task `preference`: pairs of answers, of which the better one is to be likelier."""
    run = Run(tmp_path / "preferences")
    (run.folder / "eval").mkdir(parents=True)
    (run.folder / "status.json").write_text('{"status": "finished", "seconds": 9.0}')
    for name, shift in (("base", 0.0), ("tuned", 1.5)):
        margins = np.random.default_rng(0).normal(shift, 1.0, 40)
        metrics = {"win_rate": Metric(WIN_RATE, margins > 0), "margin": Metric(MARGIN, margins)}
        run.write(f"{name}.items", items_of("pair", metrics).model_copy(update={"fingerprint": "f"}))
        levels = {key: level(metric) for key, metric in metrics.items()}
        found = Measurement(
            task="preference", metrics=levels, n_items=40, item="pair", n_tokens=900, confidence_level=0.95
        )
        run.write(name, found)
    base, tuned = (run.read(Items, f"{name}.items") for name in ("base", "tuned"))
    assert base and tuned
    run.write("compare", compare_items(base, tuned))
    return run


def test_a_task_of_somebody_elses_is_shown_compared_and_reported(preferences: Run) -> None:
    run, found = preferences, preferences.comparison
    config = Config(model=ModelSection(model_type="gpt2"))
    assert found and run.tuned and found.verdict == "better" and found.headline == "win_rate"
    for text in (
        before_after(run),
        model_card(replace(read_folder(run.folder), config=config), "other"),
        measurement_line(run.tuned),
    ):
        assert "win rate" in text and "reward margin" in text and "pairs" in text
    assert "pairs newly right" in change_line(found) and "nats/pair" in change_line(found)
    assert "margin (nats/pair)" in comparison_text(found)
    report = write_report(run.folder)
    assert report.notes == [] and report.verdict.word == "Better" and report.verdict.rest.startswith("win rate rose")
    held_out = next(section for section in report.sections if section.title.startswith("Held-out"))
    rows = held_out.blocks[0].rows  # type: ignore[union-attr]
    assert [row[0] for row in rows] == ["win rate", "reward margin (nats/pair)"]


def test_a_task_of_somebody_elses_is_repeated(preferences: Run, tmp_path: Path) -> None:
    sides = []
    for name in ("tuned", "base"):
        items = preferences.read(Items, f"{name}.items")
        assert items
        values = np.array(items.metrics["margin"].numerator)
        sides.append([(items.item, Metric(MARGIN, values + shift)) for shift in (0.0, 0.1)])
    metric = _over_runs(*sides, firsts=[0, 1], confidence=0.95)
    repeat = repeated().model_copy(update={"metrics": {"margin": metric}})
    assert metric.change and metric.change.mean.value == pytest.approx(1.5)
    text = repeat_text(Repeat.model_validate_json(json_text(repeat)), tmp_path)
    assert "tuned (nats/pair)" in text and "40 pairs" in text
