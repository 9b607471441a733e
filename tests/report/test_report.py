"""What a report says: the verdict first, each section of its own files, and no missing or damaged file breaks it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hone.cli import app
from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.errors import HoneError
from hone.report.blocks import Code, Figures, Points, Report, Table, Text
from hone.report.build import build_report, write_report, write_report_or_say
from hone.report.card import model_card
from hone.report.folder import read_folder
from hone.results import ClassReport, ClassScores, Estimate, Kind, Measurement, Sample, Verdict, write
from hone.runs import Run
from hone.tables.run import before_after, run_row, runs_table
from written_run import compared, level, of, write_run

FILES = [
    "status.json", "metrics.jsonl", "env.json", "config.resolved.yaml", "train.log", "repeat.json", "eval/base.json",
    "eval/tuned.json", "eval/compare.json", "eval/contamination.json", "eval/memorization.json",
    "eval/base.code.json", "eval/tuned.code.json", "humaneval_results.json",
]  # fmt: skip
CODE, HELD_OUT = "Generated code, by its unit tests", "Held-out data, before and after"
ALL = [
    "In plain words", "Next steps", CODE, HELD_OUT, "Samples", "Training", "What is written", "Seeds", "Data", "Cost",
    "Settings", "How to read this", "Files of this run",
]  # fmt: skip


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my-run")


@pytest.fixture
def changed(run_folder: Path) -> Callable[..., Path]:
    """changed("status.json", status="failed") -> the folder, with those keys of one JSON file replaced."""

    def change(name: str, **values: Any) -> Path:
        path = run_folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
        return run_folder

    return change


ACCURACY = Kind(heading="accuracy", higher_is_better=True, top=1.0)


def classified(accuracy: float, confusion: list[list[int]]) -> Measurement:
    each = ClassScores(precision=accuracy, recall=accuracy, f1=accuracy, rows=10)
    return Measurement(
        task="classification",
        metrics={"accuracy": level(ACCURACY, accuracy, accuracy - 0.1, accuracy + 0.1)},
        n_items=40,
        item="row",
        n_tokens=400,
        confidence_level=0.95,
        samples=[Sample(item=0, prompt="a text", reference="class 1", text="class 0")],
        classes=ClassReport(
            classes={f"class {i}": each for i in range(len(confusion))},
            averages={"macro": each},
            confusion=confusion,
            majority_class="class 0",
            majority_accuracy=0.5,
        ),
    )


def report_of(folder: Path) -> Report:
    return build_report(read_folder(folder))


def titles(report: Report) -> list[str]:
    return [section.title for section in report.sections]


def tables(report: Report, title: str) -> list[Table]:
    section = next(section for section in report.sections if section.title == title)
    return [block for block in section.blocks if isinstance(block, Table)]


def said(report: Report, title: str) -> str:
    section = next(section for section in report.sections if section.title == title)
    points = [point for block in section.blocks if isinstance(block, Points) for point in block.points]
    texts = [block.text for block in section.blocks if isinstance(block, Text | Code)]
    return " ".join([*texts, *(f"{point.text} {point.command}" for point in points)])


def test_a_finished_run_has_every_section_and_no_notes(run_folder: Path) -> None:
    report = write_report(run_folder)
    assert titles(report) == ALL and report.notes == []
    assert report.subtitle == "distilgpt2, causal, full"
    markdown = (run_folder / "report.md").read_text(encoding="utf-8")
    assert markdown.startswith(
        "# my-run\n\n**Better:** loss fell by 1.250 [1.100, 1.400] nats a token over 33 held-out"
    )
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    for text in ("<b>Better:</b>", "577a9dedd749", "1 min 34 s", "task/3", "def leaked(): pass", "AVX512"):
        assert text in page, text


def test_code_tasks_that_could_not_run_are_not_passed_over(run_folder: Path) -> None:
    for name in ("base", "tuned", "compare"):
        for file in (run_folder / "eval").glob(f"{name}.code*"):
            file.unlink()
    (run_folder / "humaneval_results.json").unlink()
    title = "Generated code, by its unit tests"
    assert title not in titles(report_of(run_folder))
    resolved = run_folder / "config.resolved.yaml"
    config = load_config(resolved, ["code_tasks=tasks.jsonl"])
    resolved.write_text(resolved_yaml(config), encoding="utf-8")
    assert "tasks.jsonl were not run; train.log says why" in said(report_of(run_folder), title)


def test_the_same_files_give_the_same_bytes(run_folder: Path) -> None:
    write_report(run_folder)
    first = [(run_folder / name).read_bytes() for name in ("report.html", "report.md")]
    write_report(run_folder)
    assert first == [(run_folder / name).read_bytes() for name in ("report.html", "report.md")]


@pytest.mark.parametrize(
    ("change", "verdict", "tone", "sentence"),
    [
        (of(-1.25, -1.4, -1.1), "better", "good", "loss fell by 1.250 [1.100, 1.400] nats a token"),
        (of(0.5, 0.25, 0.75), "worse", "bad", "loss rose by 0.500 [0.250, 0.750] nats a token"),
        (of(-0.1, -0.3, 0.1), "not distinguishable", "open", "loss changed by −0.100 [−0.300, +0.100] nats a token"),
        (of(0.0), "not distinguishable", "open", "loss changed by +0.000 nats a token"),
    ],
)
def test_the_verdict_is_one_sentence_with_interval_items_p_and_what_could_be_shown(
    run_folder: Path, change: Estimate, verdict: Verdict, tone: str, sentence: str
) -> None:
    write(run_folder / "eval/compare.json", compared(change, verdict))
    found = report_of(run_folder).verdict
    rest = " over 33 held-out documents; p <\xa00.0001"
    rest += "; 33 documents show a change of 0.21 or more" if verdict == "not distinguishable" else ""
    assert (found.word.lower(), found.tone, found.rest) == (verdict, tone, sentence + rest)


@pytest.mark.parametrize(
    ("status", "begins"),
    [
        ({"status": "failed", "error": "the loss is nan"}, "Failed: at step 20: the loss is nan"),
        ({"status": "interrupted"}, "Interrupted: at step 20; the same `hone train` command goes on"),
        ({"status": "running", "pid": 2**22 + 1}, "Killed: at step 20; the same"),
        ({"status": "odd"}, "Unknown: the folder has no status"),
    ],
)
def test_a_run_that_did_not_finish_says_so_first(
    changed: Callable[..., Path], status: dict[str, Any], begins: str
) -> None:
    folder = changed("status.json", **status)
    for name in ("eval/tuned.json", "eval/compare.json", "repeat.json"):
        (folder / name).unlink()
    found = write_report(folder).verdict
    assert f"{found.word}: {found.rest}".startswith(begins)
    assert begins[:12] in (folder / "report.md").read_text(encoding="utf-8").replace("**", "")


def test_only_one_side_measured_claims_nothing(run_folder: Path) -> None:
    for name in ("base", "compare"):
        (run_folder / "eval" / f"{name}.json").unlink()
    found = report_of(run_folder).verdict
    assert found.word == "Not compared" and found.tone == "open"
    assert found.rest == (
        "the base was not measured, so the change is unknown; tuned has a loss of 4.250 [4.100, 4.400] "
        "over 33 held-out documents"
    )
    (run_folder / "repeat.json").unlink()
    (run_folder / "eval/tuned.json").unlink()
    assert report_of(run_folder).verdict.word == "Not measured"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_costs_its_own_part(run_folder: Path, name: str) -> None:
    (run_folder / name).unlink()
    report = write_report(run_folder)
    assert report.notes == []
    gone = {
        "metrics.jsonl": {"Training"}, "repeat.json": {"Seeds"}, "config.resolved.yaml": {"Settings", "Next steps"},
        "eval/tuned.json": {"Next steps"}, "eval/compare.json": {"In plain words"},
    }  # fmt: skip
    assert set(ALL) - set(titles(report)) == gone.get(name, set())


@pytest.mark.parametrize("content", [b"{", b"[]\n", b'{"x": 1}\n', b"\xff\xfe", b"null\n", b'{"classes": 3}\n', b""])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_costs_its_own_part_and_is_named_or_empty(
    run_folder: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "metrics.jsonl":
        monkeypatch.setattr("hone.report.figures.drawable", lambda: False)  # they are slow, and not touched by this
    (run_folder / name).write_bytes(content)
    report = write_report(run_folder)
    assert (run_folder / "report.html").stat().st_size > 2000
    assert len(titles(report)) >= len(ALL) - 2
    if content == b"\xff\xfe" and name != "metrics.jsonl":  # one line cut off by a crash is no damage
        assert any(name in note for note in report.notes), report.notes


def test_nothing_but_a_status_is_enough(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"status": "failed", "error": "no GPU"}', encoding="utf-8")
    assert write_report(tmp_path).verdict.rest == "before its first log line: no GPU"


def test_metrics_stand_beside_each_other_with_their_intervals(run_folder: Path) -> None:
    table = tables(report_of(run_folder), HELD_OUT)[0]
    assert table.head == ["", "base", "tuned", "tuned − base, paired", "p", "MDE"]
    assert table.rows[0] == [
        "loss (nats/token)", "5.500 [5.350, 5.650]", "4.250 [4.100, 4.400]", "−1.250 [−1.400, −1.100]",
        "<\xa00.0001", "0.21",
    ]  # fmt: skip
    assert table.rows[1][3] == "× 0.287 [0.247, 0.333]"  # exp of the line above
    assert table.caption == "33 held-out documents, 1,934 tokens; in brackets 95% intervals over documents."


def test_graded_programs_are_counted_in_pairs(run_folder: Path) -> None:
    report = report_of(run_folder)
    shares, pairs = tables(report, CODE)
    assert [row[0] for row in shares.rows] == ["base", "tuned", "humaneval"]
    assert shares.rows[1][1:] == ["0.500 [0.150, 0.850]", "2 of 4", "4", "2 wrong"]
    assert pairs.rows == [["base passes", "1", "1"], ["base fails", "1", "1"]]
    section = next(section for section in report.sections if section.title == CODE)
    grids = [block for block in section.blocks if block.kind == "grid"]
    assert [mark for mark, _ in grids[0].marks] == ["+", "·", "●", "−"]
    assert [mark for mark, _ in grids[1].marks] == ["●", "●"]


def test_written_texts_and_what_is_copied(run_folder: Path) -> None:
    quality, copied = tables(report_of(run_folder), "What is written")
    assert quality.rows == [["parses", "0.55 [0.2, 0.7]", "0.425 [0.2, 0.7]"]]
    before_after = ["0.050 [0.010, 0.240]", "0.450 [0.260, 0.660]", "+0.400 [+0.150, +0.600]"]
    assert copied.rows[0] == ["training", "20", *before_after, "0.0078"]
    assert copied.rows[1] == ["held-out", "20", "–", "0.000", "–", "–"]


def test_data_cost_and_settings(run_folder: Path) -> None:
    report = report_of(run_folder)
    told = said(report, "Data")
    assert (
        "187 training examples" in told
        and "Dropped 3 × rows without text" in told
        and "99 training" not in told
        and "ontamination:" not in told
    )
    assert (
        "Of 33 held-out documents, 1 is in the training rows and 1 nearly matches one (1 word for word, 1 nearly)."
        in told
    )
    costs = {row[0]: row[1] for row in tables(report, "Cost")[0].rows}
    assert costs["tokens a second"] == "310 (median of 2 log lines, 300 to 320)"
    assert costs["tokens trained on"] == "2,100, 850 supervised" and costs["peak memory"] == "1.60 GB"
    settings = {row[0]: row[1:] for row in tables(report, "Settings")[0].rows}
    assert settings["train.learning_rate"][0] == "0.0003" and "train.seed" not in settings


def test_seeds_and_the_folder_of_a_repetition(run_folder: Path) -> None:
    rows = tables(report_of(run_folder), "Seeds")[0].rows
    assert [row[0] for row in rows] == ["0", "1", "mean"]
    assert rows[2][2] == "−1.2500 [−1.5000, −1.1000]"
    for path in [*run_folder.glob("eval/*"), *run_folder.glob("*.json*")]:
        if path.name != "repeat.json":
            path.unlink()
    found = report_of(run_folder).verdict
    assert (found.word, found.tone) == ("Better", "good")
    assert found.rest == (
        "loss changed by −1.250 [−1.500, −1.100] nats a token on average over 2 seeds and 33 held-out documents; "
        "p =\xa00.5 over seeds"
    )


@pytest.mark.parametrize("n_classes", [2, 30])
def test_classes_have_a_matrix_or_their_most_frequent_confusions(run_folder: Path, n_classes: int) -> None:
    confusion = [[8, 2], [1, 9]] if n_classes == 2 else [[5] * n_classes for _ in range(n_classes)]
    for name, accuracy in (("base", 0.5), ("tuned", 0.75)):
        write(run_folder / "eval" / f"{name}.json", classified(accuracy, confusion))
    change = compared(of(0.25, 0.1, 0.4), "better", ACCURACY, p=0.002, only_a=3, only_b=12, n_items=40)
    rows = {"item": "row", "n_items": 40}
    write(run_folder / "eval/compare.json", change.model_copy(update=rows))
    report = write_report(run_folder)
    assert report.notes == []
    assert report.verdict.rest.startswith("accuracy rose by 0.250 [0.100, 0.400] over 40 held-out rows; p =\xa00.002")
    assert "By accuracy, 12 rows are newly right, 3 newly wrong." in said(report, HELD_OUT)
    matrix = tables(report, "Classes")[0]
    if n_classes == 2:
        assert matrix.rows[0] == ["class 0", *map(str, confusion[0])] and matrix.shade(0, 1) == 0.8
    else:
        assert len(matrix.rows) == 20 and matrix.head == ["true", "answered", "rows"]


def test_a_class_without_held_out_rows_has_no_scores(run_folder: Path) -> None:
    found = classified(0.5, [[8, 2], [0, 0]])
    assert found.classes is not None
    zero = ClassScores(precision=0.0, recall=0.0, f1=0.0, rows=0)
    classes = found.classes.model_copy(update={"classes": {**found.classes.classes, "class 1": zero}})
    for name in ("base", "tuned"):
        write(run_folder / "eval" / f"{name}.json", found.model_copy(update={"classes": classes}))
    scores = tables(build_report(read_folder(run_folder)), "Classes")[-1]
    assert scores.rows[1] == ["class 1", "–", "–", "–", "0"] and scores.rows[0][1] == "0.500"
    assert scores.caption == "tuned, class by class; –: no held-out rows of this class"
    shown = before_after(Run(run_folder))
    line = next(line for line in shown.splitlines() if line.startswith("class 1"))
    assert line.split() == ["class", "1", "0", "0", "-", "-", "-"]
    assert "-: no held-out rows of this class" in shown
    card = model_card(read_folder(run_folder), "text-classification")
    assert "How well it finds these was not measured, for want of held-out rows: class 1." in card


def test_runs_are_listed_by_what_counts_for_their_task(run_folder: Path, tmp_path: Path) -> None:
    assert "5.500 -> 4.250" in runs_table([Run(run_folder)])
    for name, accuracy in (("base", 0.5), ("tuned", 0.75)):
        write(run_folder / "eval" / f"{name}.json", classified(accuracy, [[8, 2], [1, 9]]))
    assert "accuracy 0.500 -> 0.750" in runs_table([Run(run_folder)])
    row = run_row(Run(run_folder))
    assert (row["metric"], row["before"], row["after"]) == ("accuracy", 0.5, 0.75)
    (run_folder / "eval/base.json").unlink()
    assert "accuracy - -> 0.750" in runs_table([Run(run_folder)])


def test_the_log_is_a_table_where_there_are_no_drawings(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.report.figures.drawable", lambda: False)
    report = write_report(run_folder)
    training = next(section for section in report.sections if section.title == "Training")
    assert isinstance(training.blocks[0], Figures) and not training.blocks[0].figures
    assert "pip install 'hone-lm[report]'" in said(report, "Training")
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" not in page and "<details><summary>The numbers" not in page and "5.2500" in page


def test_a_loss_that_is_no_number_is_said(run_folder: Path) -> None:
    path = run_folder / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 30, "loss": null, "tokens": 3000}\n', encoding="utf-8")
    assert "1 log lines have a loss that is not a number, the first at step 30." in said(
        write_report(run_folder), "Training"
    )


def test_the_command_prints_the_verdict_and_refuses_what_is_no_run(run_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run_folder)])
    assert (
        done.exit_code == 0
        and done.output.startswith("Better: loss fell by 1.250")
        and "p < 0.0001" in done.output
        and "report.html" in done.output
    )
    for place in (tmp_path / "nowhere", tmp_path):
        refused = CliRunner().invoke(app, ["report", str(place)])
        assert refused.exit_code == 1 and "hone runs" in refused.output


def test_a_training_survives_a_report_that_cannot_be_written(
    run_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run_folder / "report.html").mkdir()
    with pytest.raises(HoneError):
        write_report(run_folder)
    write_report_or_say(run_folder)
    assert "no report was written" in caplog.text


def test_torch_is_not_imported(run_folder: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from hone.report.build import write_report
write_report(Path({str(run_folder)!r}))
heavy = {{"torch", "transformers", "datasets", "sklearn", "matplotlib.pyplot"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
