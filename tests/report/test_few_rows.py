"""What a report says and advises after a run of a beginner: few held-out rows, a broken run, a lower loss."""

import re
from pathlib import Path
from typing import Any

import pytest

from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.report.folder import read_folder
from hone.report.next_steps import steps_after
from hone.report.takeaways import takeaways
from hone.report.verdict import verdict_of
from hone.results import Estimate, Measurement, Sample, Verdict, write
from hone.runs import Run, _refuse_other_run
from hone.tables.run import before_after
from written_run import LOSS, PERPLEXITY, compared, level, lines, of, write_run


def small_run(
    folder: Path,
    n: int,
    losses: tuple[float, float] = (3.0, 2.5),
    perplexities: tuple[float, float] = (21.4, 3.12),
    change: Estimate | None = None,
    verdict: Verdict = "not distinguishable",
    settings: tuple[str, ...] = ("validation_file=eval.jsonl",),
    rows: int = 8,
    prompt: str = "Say hello.",
    **more: Any,
) -> Path:
    """A run with n held-out documents and nothing else measured."""
    write_run(folder)
    for file in [*folder.glob("eval/*.code*"), folder / "humaneval_results.json", folder / "repeat.json"]:
        file.unlink()
    (folder / "eval/contamination.json").unlink()
    sample = Sample(item=0, prompt=prompt, text="x")
    for name, loss, perplexity in zip(("base", "tuned"), losses, perplexities):
        metrics = {"loss": level(LOSS, loss), "perplexity": level(PERPLEXITY, perplexity)}
        found = Measurement(task="causal", metrics=metrics, n_items=n, item="document", n_tokens=9,
                            confidence_level=0.95, samples=[sample])  # fmt: skip
        write(folder / "eval" / f"{name}.json", found)
    change = change or of(losses[1] - losses[0], -0.9, 0.4)
    more = {"p": 0.5, "a": of(losses[0]), "b": of(losses[1]), "n_items": n} | more
    found_change = compared(change, verdict, minimum_detectable_effect=None if n < 6 else 0.2, **more)
    write(folder / "eval/compare.json", found_change.model_copy(update={"n_items": n}))
    (folder / "metrics.jsonl").write_text(
        lines(
            [{"step": 1, "loss": 3.0}, {"step": 2, "eval_loss": 0.8 * losses[1]}, {"step": 3, "eval_loss": losses[1]}]
        ),
        encoding="utf-8",
    )
    log = f"08:00:00 data: {rows} training examples, 99 tokens (9 supervised), template plain\n"
    (folder / "train.log").write_text(log, encoding="utf-8")
    config = load_config(folder / "config.resolved.yaml", list(settings))
    (folder / "config.resolved.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    return folder


def plain_words(folder: Path) -> str:
    section = takeaways(read_folder(folder))
    return " ".join(point.text for block in section.blocks for point in block.points) if section else ""  # type: ignore[union-attr]


def steps(folder: Path) -> list[tuple[str, str]]:
    return [(step.text, step.command or "") for step in steps_after(read_folder(folder))]


def test_too_few_texts_are_called_that_and_nothing_more(tmp_path: Path) -> None:
    said = plain_words(small_run(tmp_path / "rows", 4, rows=60))
    assert said == (
        "Measured on 4 texts, perplexity went from 21.4 to 3.12. Four texts are too few to call that more than luck."
    )
    assert "One text is too few" in plain_words(small_run(tmp_path / "one", 1))


def test_few_rows_to_train_on_are_said_once_in_plain_words(tmp_path: Path) -> None:
    few = small_run(tmp_path / "few", 40, rows=1)
    assert plain_words(few).count("Only 1 example to train on. A model learns the form of so few at most") == 1
    (few / "metrics.jsonl").write_text(lines([{"step": 1, "eval_loss": 2.9}, {"step": 2, "eval_loss": 2.5}]))
    assert [text for text, _ in steps(few) if text.startswith("Add training rows: only 1 example")]
    assert not [command for _, command in steps(few) if "longer" in command]
    assert "to train on" not in plain_words(small_run(tmp_path / "enough", 40, rows=50))


def test_enough_texts_that_do_not_tell(tmp_path: Path) -> None:
    said = plain_words(small_run(tmp_path / "rows", 40, perplexities=(21.4, 20.9)))
    assert said.startswith("Measured on 40 texts, perplexity went from 21.4 to 20.9. That could be chance. These 40")


@pytest.mark.parametrize("n", [2, 40])
def test_a_broken_run_starts_again_with_a_lower_rate(tmp_path: Path, n: int) -> None:
    folder = small_run(tmp_path / "rows", n, (2.98, 262.0), (19.7, 5e113))
    said = plain_words(folder)
    assert "perplexity went from 19.7 to 5e+113. That is worse than guessing" in said and "overfit" not in said
    (text, command), *others = steps(folder)
    usual = "with method: full, 1e-05 to 5e-05 are usual"
    assert text == f"The loss went up: begin again with the rate that suits the base ({usual})."
    assert "learning_rate=5e-05 " in command and command.endswith("rows-lower-rate")
    assert not [command for _, command in others if "-longer" in command or "repeat" in command]


def test_a_run_that_diverged_is_told_the_same(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows", 4)
    (folder / "eval/tuned.json").unlink()
    (folder / "status.json").write_text('{"status": "failed", "error": "loss is nan: training diverged"}')
    ((text, command),) = steps(folder)
    assert "the rate that suits the base" in text and "learning_rate=5e-05 " in command


OWN = ("validation_file=eval.jsonl", "model_name_or_path=hone-base")


@pytest.mark.parametrize(
    ("rate", "than", "command"),
    [
        ("0.5", "the rate that suits the base (hone-base takes about 0.001 with method: full)", "learning_rate=0.001 "),
        ("1e-3", "a lower learning_rate", "learning_rate=0.0001 "),
    ],
)
def test_a_broken_run_is_shown_the_rate_of_its_base(tmp_path: Path, rate: str, than: str, command: str) -> None:
    settings = (*OWN, f"learning_rate={rate}")
    folder = small_run(tmp_path / "rows", 40, (2.98, 262.0), (19.7, 5e113), settings=settings)
    assert steps(folder)[0][0].endswith(f"begin again with {than}.") and command in steps(folder)[0][1]
    named = "The loss went up instead of down. The learning rate, 0.5, was far too high: hone-base takes about 0.001"
    assert (named in plain_words(folder)) is (rate == "0.5")


def test_a_worse_run_is_shown_the_rate_of_its_base(tmp_path: Path) -> None:
    settings = (*OWN, "learning_rate=0.5")
    worse: dict[str, Any] = {"change": of(0.1, 0.05, 0.15), "verdict": "worse", "p": 0.001, "settings": settings}
    folder = small_run(tmp_path / "rows", 40, (3.0, 3.1), **worse)
    (folder / "metrics.jsonl").write_text(lines([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.9}]))
    assert any("learning_rate=0.001 " in command for _, command in steps(folder))
    assert not any("learning_rate=0.1 " in command for _, command in steps(folder))


@pytest.mark.parametrize("n", [2, 40])
def test_a_rate_far_too_low_is_named_and_no_longer_training_advised(tmp_path: Path, n: int) -> None:
    folder = small_run(tmp_path / "rows", n, (2.98, 2.975), (19.7, 19.6), settings=(*OWN, "learning_rate=1e-6"))
    (folder / "metrics.jsonl").write_text(lines([{"step": 1, "eval_loss": 2.977}, {"step": 2, "eval_loss": 2.975}]))
    said = plain_words(folder)
    assert "The loss hardly moved: the learning rate, 1e-06, was far too low: hone-base takes about 0.001" in said
    assert "long enough" not in said
    text, command = steps(folder)[0]
    assert text == "The learning rate was far too low: hone-base takes about 0.001 with method: full."
    assert "learning_rate=0.001 " in command and command.endswith("rows-higher-rate")
    assert not any("longer" in command for _, command in steps(folder))
    assert "next:    The learning rate was far too low" in before_after(Run(folder))
    certain = compared(of(-0.005, -0.006, -0.004), "better", p=0.001, n_items=n)
    write(folder / "eval/compare.json", certain.model_copy(update={"n_items": n}))
    assert steps(folder)[0][1] == command, "a change can be certain and too small to use"


def test_a_loss_that_hardly_moved_is_not_called_long_enough(tmp_path: Path) -> None:
    course = lines([{"step": 1, "eval_loss": 2.975}, {"step": 2, "eval_loss": 2.975}])
    for tuned, says in ((2.975, "hardly moved: whether the training was long enough cannot be told"),
                        (2.1, "the training was about long enough")):  # fmt: skip
        folder = small_run(tmp_path / f"{tuned}", 40, (2.98, tuned), settings=(*OWN, "learning_rate=1e-3"))
        (folder / "metrics.jsonl").write_text(course)
        assert says in plain_words(folder)


def test_few_rows_ask_for_rows_first_and_for_no_more_training(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows", 4)
    found = steps(folder)
    assert found[0][0] == "Put at least 6, better 50, rows into eval.jsonl: with 4 no change can be shown."
    assert not re.search("longer|seeds|overfits|large changes", " ".join(text + command for text, command in found))
    said = before_after(Run(folder))
    assert "next:    Put at least 6, better 50, rows into eval.jsonl" in said
    assert "4 documents are too few to show any change" in said


@pytest.mark.parametrize(
    ("train", "n", "share", "expected"),
    [(8, 2, 20, "Add rows: of 10 rows not enough can be held out"), (24, 1, 5, "validation_split_percentage=24 ")],
)
def test_the_share_that_is_advised_holds_enough_out(
    tmp_path: Path, train: int, n: int, share: int, expected: str
) -> None:
    given = (f"validation_split_percentage={share}",)
    first = steps(small_run(tmp_path / "rows", n, settings=given, rows=train))[0]
    assert expected in " ".join(first)


def test_names_of_folders_do_not_grow(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows-more-held-out-more-held-out", 4)
    assert steps(folder)[0][1].endswith("/rows-more-held-out")
    (tmp_path / "rows-more-held-out").mkdir()
    assert steps(folder)[0][1].endswith("/rows-more-held-out-2")


def test_a_lower_loss_is_not_called_right_answers(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows", 40, change=of(-0.5, -0.6, -0.4), verdict="better", p=0.001)
    sentence = "A lower loss does not mean right answers: read the samples, or give unit tests with `code_tasks`"
    assert sentence in plain_words(folder) and sentence in before_after(Run(folder))
    assert sentence not in plain_words(write_run(tmp_path / "with-tasks"))


def test_commands_can_be_typed_as_they_are(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows", 1, prompt="It's one.\nAnd two.")
    assert steps(folder)[-1][1].endswith("""rows -p 'It'"'"'s one.'""")
    assert "over 1 held-out document, 9 tokens" in before_after(Run(folder))
    assert steps(small_run(tmp_path / "long", 1, prompt="x" * 200))[-1][1].startswith("hone chat ")


def test_an_interval_without_0_that_is_not_enough_says_why(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows", 4, change=of(-1.925, -2.693, -1.157), p=0.125)
    said = verdict_of(read_folder(folder)).rest.replace("\xa0", " ")
    assert said.endswith(
        "; p = 0.12; 4 documents are too few to show any change; both must hold: the interval leaves out 0 and "
        "p < 0.05, and with 4 documents p cannot be below 0.12"
    )


def test_another_run_is_named_with_plain_paths(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "rows", 4)
    with pytest.raises(ValueError, match=r"validation_file: \S*eval\.jsonl there, \S*other\.jsonl here") as found:
        _refuse_other_run({"validation_file": Path("/data/other.jsonl")}, folder)
    assert "PosixPath" not in str(found.value)
