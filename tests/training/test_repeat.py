"""`hone repeat`: ordinary runs that share what can be shared, and numbers that say how much is the seed's luck."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hone
from conftest import SIGNALS, pairs
from hone.cli import app
from hone.errors import HoneError
from hone.results import read
from hone.results.repeat import Repeat
from hone.runs import Run

WORDS = {"good": ["fine", "great", "lovely"], "bad": ["poor", "awful", "sad"]}


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path, write_rows: Callable[..., Path]) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model_folder),
        "train_file": str(write_rows("rows.jsonl", pairs(40))),
        "validation_split_percentage": 30,
        "max_length": 64,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "bootstrap_resamples": 200,
        "use_cpu": True,
        "sample_prompts": 0,
        "output_dir": str(tmp_path / "out"),
    }


def repeated(settings: dict[str, Any], seeds: list[int], **changes: Any) -> Repeat:
    return hone.repeat(hone.load_config({**settings, **changes}), seeds)


def items(folder: Path, name: str = "tuned") -> Any:
    return json.loads((folder / "eval" / f"{name}.items.json").read_text())


def count_calls(monkeypatch: pytest.MonkeyPatch, place: str) -> list[tuple[Any, ...]]:
    """The arguments of each call of the function at `place`, which goes on working."""
    calls: list[tuple[Any, ...]] = []
    module, name = place.rsplit(".", 1)
    real = getattr(__import__(module, fromlist=[name]), name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return real(*arguments, **named)

    monkeypatch.setattr(place, counted)
    return calls


@pytest.mark.slow
def test_each_seed_is_the_run_that_train_makes_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    repeated(settings, [1, 2, 3])
    alone = hone.train(hone.load_config({**settings, "seed": 3, "output_dir": str(tmp_path / "alone")}))
    assert items(alone.folder) == items(tmp_path / "out" / "seed-3")
    assert items(alone.folder, "base") == items(tmp_path / "out" / "seed-3", "base")
    shared = Run(tmp_path / "out" / "seed-3").base
    assert shared and alone.base and shared.model_copy(update={"seconds": alone.base.seconds}) == alone.base


def test_what_can_be_shared_is_done_once(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    measured = count_calls(monkeypatch, "hone.evaluation.held_out.evaluate_model")
    tokenised = count_calls(monkeypatch, "hone.data.prepare.write_store")
    repeated(settings, [5, 6, 7])
    assert len(measured) == 4, "the base once, and each tuned model"
    assert len(tokenised) == 1


@pytest.mark.slow
def test_the_same_call_trains_only_what_is_missing(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repeated(settings, [1, 2])
    fitted = count_calls(monkeypatch, "hone.training.train._fit")
    assert repeated(settings, [1, 2]) == first
    assert not fitted
    more = repeated(settings, [1, 2, 3])
    assert len(fitted) == 1
    assert more.runs[:2] == first.runs
    assert read(Repeat, tmp_path / "out" / "repeat.json") == more


def test_numbers_are_those_of_the_folders(settings: dict[str, Any], tmp_path: Path) -> None:
    found = repeated(settings, [1, 2, 3])
    runs = [Run(tmp_path / "out" / f"seed-{seed}") for seed in (1, 2, 3)]
    losses = [run.tuned.value("loss") for run in runs if run.tuned]
    changes = [run.comparison.metrics["loss"].difference.value for run in runs if run.comparison]
    assert [row.tuned.value for row in found.runs] == losses
    tuned, change = found.metrics["loss"].tuned, found.metrics["loss"].change
    assert change and change.standard_deviation
    assert tuned.mean.value == pytest.approx(np.mean(losses), rel=1e-12)
    assert change.mean.value == pytest.approx(np.mean(changes), rel=1e-9)
    assert change.standard_deviation.value == pytest.approx(np.std(changes, ddof=1), rel=1e-6)
    assert tuned.n_items == len(items(runs[0].folder)["metrics"]["loss"]["numerator"])
    weights = [items(run.folder)["metrics"]["loss"]["weight"] for run in runs]
    assert weights[0] == weights[1] == weights[2]  # the same held-out rows
    assert len(set(losses)) == 3  # and yet the seeds do differ
    assert change.verdict == "better"
    assert change.sign_flip_p == change.smallest_sign_flip_p == 0.25


@pytest.mark.slow
def test_code_tasks_are_solved_by_the_base_once_and_judged_over_seeds(
    settings: dict[str, Any], tmp_path: Path, write_rows: Callable[..., Path], strict_sandbox: Any
) -> None:
    tasks = [
        {
            "task_id": f"T/{i}",
            "prompt": f"def f{i}(x):\n",
            "entry_point": f"f{i}",
            "tests": [f"assert f{i}(1) == 1"],
        }
        for i in range(3)
    ]
    found = repeated(settings, [1, 2], code_tasks=str(write_rows("tasks.jsonl", tasks)), max_new_tokens=4)
    passed = found.metrics["passed"]
    assert passed.item == "task" and passed.change and passed.change.n_items == 3
    assert passed.change.verdict == "not distinguishable"  # none passes, before or after
    for file in ("base.code.json", "base.code.jsonl"):
        assert len({(tmp_path / "out" / f"seed-{seed}" / "eval" / file).read_text() for seed in (1, 2)}) == 1


@pytest.mark.slow
def test_a_seed_twice_is_the_same_training_and_no_second_draw(settings: dict[str, Any], tmp_path: Path) -> None:
    found = repeated(settings, [1, 1, 7])
    assert [row.folder for row in found.runs] == ["seed-1", "seed-1-run-2", "seed-7"]
    assert items(tmp_path / "out" / "seed-1") == items(tmp_path / "out" / "seed-1-run-2")
    assert found.same_seed_spread == {1: 0.0}
    change = found.metrics["loss"].change
    assert change and change.n_seeds == 2
    only = repeated(settings, [1, 1]).metrics["loss"].change
    assert only and only.n_seeds == 1
    assert only.mean.bounds is only.sign_flip_p is None
    assert only.verdict == "not distinguishable"


def test_lora_shares_the_base_and_says_what_the_seed_draws(settings: dict[str, Any], tmp_path: Path) -> None:
    found = repeated(settings, [1, 2], method="lora", lora_target_modules=["c_attn"])
    assert "the initial weights of the adapter" in found.seed_changes
    assert not found.base_depends_on_seed
    assert items(tmp_path / "out" / "seed-1", "base") == items(tmp_path / "out" / "seed-2", "base")


def test_from_scratch_each_seed_has_its_own_base(settings: dict[str, Any], tmp_path: Path) -> None:
    scratch = {**settings, "model_type": "gpt2", "tokenizer_name_or_path": settings.pop("model_name_or_path")}
    del scratch["model_name_or_path"]
    scratch["config_overrides"] = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 64}
    found = repeated(scratch, [1, 2])
    assert found.base_depends_on_seed
    assert items(tmp_path / "out" / "seed-1", "base") != items(tmp_path / "out" / "seed-2", "base")


@pytest.mark.slow
def test_classes_are_judged_by_accuracy(
    settings: dict[str, Any], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    rows = [
        {"text": f"{word} number {i} {'so' * (i % 5)}", "label": label}
        for label, words in WORDS.items()
        for i in range(12)
        for word in words
    ]
    found = repeated(settings, [1, 2, 3], task="classification", train_file=str(write_rows("classes.jsonl", rows)),
                     num_train_epochs=3)  # fmt: skip
    runs = [Run(tmp_path / "out" / f"seed-{seed}") for seed in (1, 2, 3)]
    shares = [run.tuned.value("accuracy") for run in runs if run.tuned]
    gains = [run.comparison.metrics["accuracy"].difference.value for run in runs if run.comparison]
    metric = found.metrics["accuracy"]
    assert found.headline == "accuracy" and metric.change
    assert metric.tuned.mean.value == pytest.approx(np.mean(shares))
    assert metric.change.mean.value == pytest.approx(np.mean(gains))
    assert items(runs[0].folder, "base") != items(runs[1].folder, "base")  # each head starts with other weights


@pytest.mark.slow
@SIGNALS
def test_ctrl_c_stops_and_the_same_command_goes_on(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"save_strategy": "steps", "save_steps": 2}
    arguments = ["repeat", "--seeds", "1,2", *(f"{key}={value}" for key, value in settings.items())]
    from hone.training.callbacks import Stopper

    real = Stopper.on_step_end

    def interrupt(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        if args.seed == 2 and state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, args, state, control, **rest)

    monkeypatch.setattr(Stopper, "on_step_end", interrupt)
    stopped = CliRunner().invoke(app, arguments)
    assert stopped.exit_code == 130, stopped.output
    assert "same command goes on" in stopped.output
    assert not (tmp_path / "out" / "repeat.json").exists()
    monkeypatch.setattr(Stopper, "on_step_end", real)
    fitted = count_calls(monkeypatch, "hone.training.train._fit")
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert len(fitted) == 1
    assert fitted[0][-1] is not None  # from a checkpoint
    whole = repeated(settings, [1, 2], output_dir=str(tmp_path / "whole"))
    found = Repeat.model_validate_json(done.stdout)
    assert [row.tuned for row in found.runs] == [row.tuned for row in whole.runs]
    assert found.metrics == whole.metrics


def test_the_table_names_every_seed_and_what_they_can_show(settings: dict[str, Any], tmp_path: Path) -> None:
    arguments = ["repeat", *(f"{key}={value}" for key, value in settings.items()), "seed=4", "--seeds", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()
    assert [line.split()[0] for line in shown[2:4]] == ["4", "5"]
    assert "2 seeds, which cannot give less than 0.5; 6 are the fewest for p < 0.05" in result.stdout
    assert "nats/token over 2 seeds and 12 documents: " in result.stdout
    assert "bits per byte over 2 seeds and 12 documents: " in result.stdout


@pytest.mark.parametrize("text", ["", "six", "1,,2", "-3", "1.5", "0", "1,99999999999"])
def test_what_is_no_list_of_seeds_is_refused(settings: dict[str, Any], tmp_path: Path, text: str) -> None:
    arguments = ["repeat", *(f"{key}={value}" for key, value in settings.items()), f"--seeds={text}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "--seeds" in result.output
    assert not (tmp_path / "out").exists()


def test_mistakes_are_found_before_anything_is_trained(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="no validation rows"):
        repeated(settings, [1, 2], validation_split_percentage=0)
    with pytest.raises(HoneError, match="one run's checkpoint"):
        repeated(settings, [1, 2], resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert not (tmp_path / "out").exists()
    hone.train(hone.load_config(settings))
    with pytest.raises(HoneError, match="single run"):
        repeated(settings, [1, 2])


def test_a_folder_that_is_not_ours_is_left_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = tmp_path / "out" / "seed-2"
    theirs.mkdir(parents=True)
    (theirs / "notes.txt").write_text("mine")
    with pytest.raises(HoneError, match=r"holds no run of hone \(found notes.txt\)"):
        repeated(settings, [1, 2])
    assert [path.name for path in theirs.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_runs_measured_otherwise_are_not_put_together(
    settings: dict[str, Any], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    repeated(settings, [1])
    with pytest.raises(HoneError, match=r"seed-1: .*confidence_level"):
        repeated(settings, [1, 2], confidence_level=0.9)
    write_rows("rows.jsonl", pairs(44))
    with pytest.raises(HoneError, match=r"another data"):
        repeated(settings, [1, 3])
    again = repeated(settings, [1, 3], overwrite=True)
    assert again.metrics["loss"].change and again.metrics["loss"].change.n_seeds == 2


def test_without_a_base_the_tuned_models_are_compared(settings: dict[str, Any]) -> None:
    found = repeated(settings, [1, 2], eval_base=False).metrics["loss"]
    assert found.change is None
    assert found.tuned.standard_deviation and found.tuned.standard_deviation.value > 0
