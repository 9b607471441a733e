"""What a report says of programs, in plain words, as next steps and of the machine's paths."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hone.config.concepts import concept
from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.grading.pass_at_k import passed_items
from hone.report.blocks import Links, Points, Report, Samples, Words
from hone.report.build import build_report, write_report
from hone.report.folder import read_folder
from hone.report.next_steps import steps_after
from hone.report.paths import shown
from hone.report.words import GLOSSARY
from hone.results import Sample, write
from hone.runs import Run
from hone.statistics.paired import compare_items
from hone.tables.run import before_after
from written_run import compared, lines, measured, of, programs, write_run

BASE, TUNED = [False, False, True, True] * 10, [True, False, True, False] * 9 + [True] * 4


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my-run")


def graded(folder: Path, base: list[bool], tuned: list[bool]) -> Path:
    """Programs of both, all files of them, and their comparison."""
    items = []
    for name, passed in (("base", base), ("tuned", tuned)):
        found = programs(*passed)
        write(folder / "eval" / f"{name}.code.json", found)
        rows = [
            {"task_id": f"task/{i}", "completion": f"def {name}_{i}(): pass\n", "passed": right,
             "verdict": "pass" if right else "wrong", "detail": "" if right else f"assert {name}_{i}() == 1"}
            for i, right in enumerate(passed)
        ]  # fmt: skip
        (folder / "eval" / f"{name}.code.jsonl").write_text(lines(rows), encoding="utf-8")
        items.append(passed_items(found.passed))
    write(folder / "eval/compare.code.json", compare_items(*items, confidence=0.95, resamples=200))
    return folder


def with_settings(folder: Path, *settings: str) -> Path:
    path = folder / "config.resolved.yaml"
    path.write_text(resolved_yaml(load_config(path, list(settings))), encoding="utf-8")
    return folder


def samples_of(report: Report, title: str) -> dict[str, Samples]:
    found = next(section for section in report.sections if section.title == title)
    return {block.title: block for block in found.blocks if isinstance(block, Samples)}


def points(report: Report, title: str) -> str:
    found = next((section for section in report.sections if section.title == title), None)
    assert found, [section.title for section in report.sections]
    return " ".join(f"{one.text} {one.command}" for b in found.blocks if isinstance(b, Points) for one in b.points)


def commands(folder: Path) -> list[str]:
    return [step.command for step in steps_after(read_folder(folder)) if step.command]


# ---- the headline ----------------------------------------------------------------------------------------------------


def test_programs_that_pass_come_before_the_loss_everywhere(run_folder: Path) -> None:
    report = write_report(graded(run_folder, [False] * 40, [True] * 12 + [False] * 28))
    assert report.verdict.rest == "0 → 12 of 40 tasks pass; p =\xa00.00049"
    assert report.verdict.also == (
        "Better: loss fell by 1.250 [1.100, 1.400] nats a token over 33 held-out documents; p <\xa00.0001.",
    )
    for name in ("report.html", "report.md"):
        text = (run_folder / name).read_text(encoding="utf-8")
        assert text.index("0 → 12 of 40 tasks pass") < text.index("loss fell by 1.250")
    said = before_after(Run(run_folder))
    assert said.startswith("Better: 0 -> 12 of 40 tasks pass; p = 0.00049.\nBetter: loss fell by 1.250")


def test_tasks_that_no_longer_pass_are_in_the_headline(run_folder: Path) -> None:
    report = build_report(read_folder(graded(run_folder, BASE, TUNED)))
    assert report.verdict.word == "Not distinguishable"
    assert report.verdict.rest.startswith("20 → 22 of 40 tasks pass (11 newly, 9 no longer); p ")
    assert "40 tasks show a change of" in report.verdict.rest
    assert "not mean that nothing changed" in points(report, "In plain words")


# ---- programs to read ------------------------------------------------------------------------------------------------


def test_newly_passing_failing_and_lost_programs_are_shown_with_their_tests(run_folder: Path) -> None:
    found = samples_of(build_report(read_folder(graded(run_folder, BASE, TUNED))), "Generated code, by its unit tests")
    assert list(found) == [
        "Newly passing: 3 of 11 tasks", "No longer passing: 3 of 9 tasks", "Still failing: 3 of 9 tasks",
        "All 11 newly passing programs",
    ]  # fmt: skip
    newly, still = found["Newly passing: 3 of 11 tasks"], found["Still failing: 3 of 9 tasks"]
    assert [one.title for one in newly.samples] == ["task/0", "task/20", "task/37"]
    assert newly.samples[0].marks["tuned"].text == "passes" and newly.samples[0].marks["base"].right is False
    assert still.samples[0].marks["tuned"].text == "fails: assert tuned_1() == 1"
    assert found["All 11 newly passing programs"].folded


def test_every_newly_passing_program_is_in_the_page(run_folder: Path) -> None:
    write_report(graded(run_folder, [False] * 40, [True] * 30 + [False] * 10))
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert all(f"def tuned_{i}(): pass" in page for i in range(30))
    assert 'href="eval/tuned.code.jsonl"' in page


def test_a_program_may_hold_any_end_of_a_line(run_folder: Path) -> None:
    row = {"task_id": "task/0", "completion": "a\u2028b\x85c\x0bd\re", "passed": True, "verdict": "pass", "detail": ""}
    for name in ("base", "tuned"):
        path = run_folder / "eval" / f"{name}.code.jsonl"
        path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    found = read_folder(run_folder)
    assert not found.notes and [answer.text for answer in found.answers["tuned"]] == [row["completion"]]


def test_free_samples_say_whether_they_were_graded(run_folder: Path, tmp_path: Path) -> None:
    tasks = [
        {"task_id": f"task/{i}", "prompt": f"Write f{i}.", "entry_point": f"f{i}", "tests": [f"assert f{i}() == 1"]}
        for i in range(4)
    ]
    (tmp_path / "tasks.jsonl").write_text(lines(tasks), encoding="utf-8")
    with_settings(run_folder, f"code_tasks={tmp_path / 'tasks.jsonl'}")
    given = [("### Instruction:\nWrite f0.\n", "def f0():\n    return 1"), ("Write f1.", "x = 1"), ("Other", "y")]
    samples = [Sample(item=i, prompt=prompt, text=text) for i, (prompt, text) in enumerate(given)]
    for name in ("base", "tuned"):
        write(run_folder / "eval" / f"{name}.json", measured(4.0, samples=samples))
    (block,) = samples_of(build_report(read_folder(run_folder)), "Samples").values()
    said = [{name: mark.text for name, mark in sample.marks.items()} for sample in block.samples]
    assert said[0] == {"base": "not graded", "tuned": "passes"}, "the base's program of this task is another one"
    assert said[1] == said[2] == {"base": "not graded", "tuned": "not graded"}


def test_most_samples_are_folded_and_not_in_the_markdown(run_folder: Path) -> None:
    samples = [Sample(item=i, prompt=f"prompt {i}", text=f"text {i}.") for i in range(20)]
    for name in ("base", "tuned"):
        write(run_folder / "eval" / f"{name}.json", measured(4.0, samples=samples))
    write_report(run_folder)
    page, markdown = ((run_folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "text 19." in page and "<summary>17 more</summary>" in page
    assert "text 2." in markdown and "text 3." not in markdown


# ---- next steps ------------------------------------------------------------------------------------------------------


def curve(folder: Path, *losses: float) -> None:
    rows = [{"step": 10 * i, "epoch": float(i), "eval_loss": loss} for i, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text(lines([{"step": 1, "loss": 5.0, "tokens": 9}, *rows]), encoding="utf-8")


def test_a_better_run_is_used_first_and_repeated(run_folder: Path) -> None:
    found = commands(run_folder)
    assert found[0].startswith("hone generate ") and found[0].endswith("my-run -p 'def f(x):'")
    assert any(one.startswith("hone repeat ") and "--seeds 6" in one for one in found)
    (run_folder / "template.json").write_text('{"template": "instruction"}', encoding="utf-8")
    assert commands(run_folder)[0].startswith("hone chat ")
    assert any("--to merged" in one for one in commands(with_settings(run_folder, "method=lora")))


def test_a_run_that_overfits_names_the_epoch_it_turned(run_folder: Path) -> None:
    curve(run_folder, 4.0, 3.5, 3.6, 4.1)
    assert "num_train_epochs=2 " in " ".join(commands(run_folder))
    said = points(build_report(read_folder(run_folder)), "In plain words")
    assert "lowest at step 20 (epoch 2 of 4) and rose" in said
    curve(run_folder, 4.0, 3.5, 3.0)
    assert "num_train_epochs=6 " in " ".join(commands(run_folder)), "still falling: twice the three epochs"


def test_nothing_seen_asks_for_more_held_out_rows_and_more_training(run_folder: Path) -> None:
    write(run_folder / "eval/compare.json", compared(of(-0.1, -0.3, 0.1), "not distinguishable"))
    found = " ".join(commands(run_folder))
    assert "validation_split_percentage=20 " in found and "num_train_epochs=6 " in found
    write(run_folder / "eval/compare.json", compared(of(0.5, 0.3, 0.7), "worse"))
    assert "learning_rate=5e-05 " in " ".join(commands(run_folder)), "the usual rate of such a base"


def test_steps_are_few_and_their_settings_are_accepted(run_folder: Path) -> None:
    for verdict, change in (("better", -1.0), ("worse", 1.0), ("not distinguishable", 0.1)):
        write(run_folder / "eval/compare.json", compared(of(change, change - 0.1, change + 0.1), verdict))  # type: ignore[arg-type]
        for losses in ((4.0, 3.0), (3.0, 4.0), (3.0, 3.0)):
            curve(run_folder, *losses)
            found = commands(run_folder)
            assert 1 <= len(found) <= 5
            for command in found:
                settings = re.findall(r"\b[a-z_]+=\S+", command)
                load_config(run_folder / "config.resolved.yaml", settings)


def test_an_interrupted_run_is_resumed_and_nothing_else(run_folder: Path) -> None:
    for name in ("tuned", "compare"):
        (run_folder / "eval" / f"{name}.json").unlink()
    (run_folder / "repeat.json").unlink()
    (run_folder / "status.json").write_text(json.dumps({"status": "interrupted"}), encoding="utf-8")
    (only,) = commands(run_folder)
    assert only.startswith("hone train ") and only.endswith("config.resolved.yaml")


def test_the_terminal_ends_with_the_report_and_what_to_do_next(run_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(run_folder.parent)
    write_report(run_folder)
    said = before_after(Run(run_folder)).splitlines()
    at = said.index("report:  my-run/report.html")
    assert said[at - 1] == "model:   my-run" and said[at + 1].startswith("next:")
    assert said[at + 2].strip() == "hone generate my-run -p 'def f(x):'"
    assert all(ord(character) < 256 or character in "…" for line in said for character in line)


# ---- words, data, paths ----------------------------------------------------------------------------------------------


def test_words_are_explained_by_the_concepts_and_only_where_they_occur(run_folder: Path) -> None:
    assert [word.explained_as for word, _ in GLOSSARY if concept(word.explained_as) is None] == []

    def shown_words() -> set[str]:
        report = build_report(read_folder(run_folder))
        return {one.word for s in report.sections for b in s.blocks if isinstance(b, Words) for one in b.words}

    assert {"loss", "nats", "perplexity", "interval", "p", "MDE", "gradient norm"} <= shown_words()
    change = compared(of(-1.25, -1.4, -1.1), "better", minimum_detectable_effect=None)
    write(run_folder / "eval/compare.json", change)
    report = write_report(run_folder)
    assert "MDE" not in shown_words() and not report.notes
    assert "MDE" not in (run_folder / "report.md").read_text(encoding="utf-8")


def test_contamination_is_told_after_what_was_dropped(run_folder: Path) -> None:
    found = read_folder(with_settings(run_folder, "overlap=drop")).contamination
    assert found
    write(run_folder / "eval/contamination.json", found.model_copy(update={"rows": [12, 13, 15]}))
    write_report(run_folder)
    text = (run_folder / "report.md").read_text(encoding="utf-8")
    dropped = "3 training rows that held one of the 33 held-out documents (1 word for word, 1 nearly) were dropped"
    assert f"{dropped}; none of the items is left in training." in text
    assert "are in the training rows" not in text
    assert text.index("187 training examples") < text.index(dropped)


def test_no_path_of_the_machine_is_in_the_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "project" / "out" / "my-run")
    rows = tmp_path / "project" / "rows.jsonl"
    with_settings(folder, f"train_file={rows}", f"output_dir={folder}", "model_name_or_path=/elsewhere/models/gpt2")
    with (folder / "train.log").open("a", encoding="utf-8") as log:
        log.write(f"08:02:44 data: dropped 1 × rows without text: {rows}:4\n")
    report = write_report(folder)
    settings = next(section for section in report.sections if section.title == "Settings")
    page, markdown = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for text in (page, markdown):
        without_commands = re.sub(r"hone \w+ [^<`]*|grep [^<`]*", "", text)
        assert str(tmp_path) not in without_commands
        assert "../../rows.jsonl" in text and "…/models/gpt2" in text
    assert settings.blocks[1].text.count("../../rows.jsonl") == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b/run/eval/x.json", "eval/x.json"),
        ("/a/b/run", "."),
        ("/a/b/rows.jsonl", "../rows.jsonl"),
        ("/other/place/rows.jsonl", "…/place/rows.jsonl"),
        ("rows.jsonl", "rows.jsonl"),
    ],
)
def test_paths_as_seen_from_the_run(path: str, expected: str) -> None:
    assert shown(Path(path), Path("/a/b/run")) == expected


def test_the_files_of_the_run_are_linked(run_folder: Path) -> None:
    report = build_report(read_folder(run_folder))
    (links,) = [block for section in report.sections for block in section.blocks if isinstance(block, Links)]
    assert "eval/compare.json" in links.files and "env.json" in links.files
    assert all((run_folder / name).is_file() for name in links.files)


def test_tables_are_cards_on_a_phone_but_for_matrices(run_folder: Path) -> None:
    write_report(run_folder)
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert 'data-label="tuned − base, paired"' in page and 'data-label="base"' in page
    assert page.count("<table>") == 2, "the pairs of programs and the log"
    assert page.count('<table class="cards">') >= 5
