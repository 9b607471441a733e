"""What a user holds after a training: shown, opened, listed, asked; and text of a model in it stays text."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from transformers import TrainerCallback

import hone
from conftest import pairs
from hone.errors import HoneError, printable
from hone.results import Sample, json_text
from report.test_untrusted_text import NASTY, Page
from written_run import measured, programs, write_run


@pytest.fixture
def written(tmp_path: Path) -> Any:
    return hone.Run(write_run(tmp_path / "my-run"))


def html_of(shown: Any) -> Page:
    page = Page()
    page.feed(shown._repr_html_())
    page.close()
    assert not page.open
    return page


def test_a_run_says_status_base_numbers_and_verdict(written: Any) -> None:
    said = repr(written)
    assert said == str(written) and "\n" not in said and str(written.folder) in said
    assert all(word in said for word in ("finished", "distilgpt2", "loss 5.500 -> 4.250 (better)", "2 -> 2 of 4"))
    (written.folder / "eval" / "compare.json").unlink()
    (written.folder / "eval" / "tuned.code.json").unlink()
    assert repr(written).endswith("not measured")
    (written.folder / "status.json").write_text("{")
    assert "damaged" in repr(written)


def test_a_notebook_shows_verdict_table_and_tests(written: Any) -> None:
    html = written._repr_html_()
    assert "<b>Better</b>" in html and "2 of 4" in html and "5.500 [5.350, 5.650]" in html
    assert "color:#" not in html.replace("border-left", ""), "letters are in the notebook's own colour"
    assert html_of(written).elements.count("table") == 2


def test_text_stays_text(written: Any) -> None:
    samples = [Sample(item=i, prompt=text, reference=text, text=text) for i, text in enumerate(NASTY)]
    for name in ("base", "tuned"):
        (written.folder / "eval" / f"{name}.json").write_text(json_text(measured(5.0, samples=samples)), "utf-8")
        code = programs(True, False).model_copy(update={"verdicts": dict.fromkeys(NASTY, 1)})
        (written.folder / "eval" / f"{name}.code.json").write_text(json_text(code), "utf-8")
    (written.folder / "eval" / "compare.json").unlink()
    (written.folder / "eval" / "tuned.json").unlink()
    (written.folder / "repeat.json").unlink()
    (written.folder / "status.json").write_text(json.dumps({"status": "failed", "error": " ".join(NASTY)}))
    page = html_of(written)
    assert set(page.elements) <= {"div", "b", "table", "tr", "th", "td", "code"}
    assert {name for name, _ in page.attributes} == {"style"}
    assert printable(NASTY[0]) not in written._repr_html_() and "&lt;script&gt;" in written._repr_html_()
    damaged = hone.find_runs(written.folder)
    assert "<script" not in damaged._repr_html_()


def test_only_a_run_can_be_opened(tmp_path: Path, written: Any) -> None:
    assert hone.Run(str(written.folder)) == written == hone.Run(written)
    with pytest.raises(HoneError, match="is not a run"):
        hone.Run(tmp_path)
    with pytest.raises(HoneError, match="no such folder"):
        hone.Run(tmp_path / "nowhere")


def test_runs_are_listed(tmp_path: Path, written: Any) -> None:
    write_run(tmp_path / "deeper" / "other")
    found = hone.find_runs(tmp_path)
    assert [run.folder.name for run in found] == ["other", "my-run"] and found[1] == written
    assert "distilgpt2" in repr(found) and len(repr(found).splitlines()) == 4
    assert html_of(found).elements.count("tr") == 3
    assert repr(hone.find_runs(written.folder / "eval")) == "no runs here"
    with pytest.raises(HoneError, match="no such folder"):
        hone.find_runs(tmp_path / "nowhere")


def test_samples_report_and_metrics_are_at_hand(written: Any) -> None:
    assert [sample.prompt for sample in written.samples()] == ["def f(x):\n"]
    (written.folder / "report.html").unlink(missing_ok=True)
    assert written.report() == written.folder / "report.html" and written.report().is_file()
    table = written.metrics()
    assert isinstance(table, pandas.DataFrame) and len(table) == len(written.metric_lines()) > 1
    assert {"step", "loss"} <= set(table.columns)


@pytest.mark.slow
def test_a_trained_run_answers_compares_and_merges(
    model_folder: Path, write_rows: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_rows("rows.jsonl", pairs(30))
    keys = {"model_name_or_path": str(model_folder), "train_file": str(rows), "max_length": 64, "max_steps": 2,
            "logging_steps": 1, "save_strategy": "no", "sample_prompts": 1, "sample_max_new_tokens": 4}  # fmt: skip
    first = hone.train(keys, output_dir=str(tmp_path / "first"))
    seen: list[int] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(state.global_step)

    second = hone.train(hone.load_config(keys), output_dir=tmp_path / "second", method="lora", callbacks=[Watch()])
    assert seen == [1, 2]
    assert isinstance(first, hone.Run) and first == hone.Run(tmp_path / "first")
    assert first.compare().verdict == first.comparison.verdict
    between = first.compare(second)
    assert (between.a, between.b) == (str(first.folder), str(second.folder))
    assert first.generate("add 1 and 2:", max_new_tokens=3) == hone.generate(first, "add 1 and 2:", max_new_tokens=3)
    done = second.export("merged", output=tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file() and done.details["base_checked"]
    assert hone.evaluate(first).value("loss") == pytest.approx(first.tuned.value("loss"), abs=1e-6)
    others = write_rows("others.jsonl", [{"prompt": f"say {i}:", "completion": f" {i}"} for i in range(7)])
    other = hone.evaluate(str(first.folder), validation_file=others)
    assert other.n_items == 7
    plan = hone.plan(keys, output_dir=str(tmp_path / "plan"))
    found = hone.repeat(keys, seeds=2, output_dir=str(tmp_path / "seeds"), save_strategy="no")
    assert [run.seed for run in found.runs] == [42, 43]
    for shown, word in (
        (first, "report.html"), (other, "7 documents"), (between, "second"), (plan, "memory"), (found, "over 2 seeds"),
    ):  # fmt: skip
        assert word in hone.text(shown)
