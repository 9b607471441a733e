"""A run that is killed anywhere and started again ends as if nothing had happened: weights and metrics are the same.

The kill is an exception here, at exact places; benchmarks/faults has the real ones.
CPU, float32.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_runs import settings, weights
from transformers import TrainerCallback

import hone
import hone.training.checkpoint as checkpoint
import hone.training.saving as saving
import hone.training.train as story
from hone.errors import HoneError
from hone.files import read_sealed
from hone.report.build import write_report
from hone.runs import COMPLETE, Run, checkpoint_problems, open_run
from hone.training.checkpoint import saved_problems

Config = dict[str, Any]
QUICK = {"sample_prompts": 0, "bootstrap_resamples": 100, "eval_base": False, "bf16": False}
TIMES = ("tokens_per_s", "step_s", "mfu", "peak_memory_bytes")


class Killed(BaseException):
    """What nothing of ours catches."""


class KilledAt(TrainerCallback):
    """Killed in the step after `step`: the next one has begun."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def lines(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.metric_lines()]


def killed(config: Config, *callbacks: TrainerCallback) -> None:
    with pytest.raises(Killed):
        hone.train(hone.load_config(config), callbacks=list(callbacks))


@pytest.fixture
def no_saved_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], None]:
    """Train a config, and be killed where the final model would be saved."""

    def train(config: Config) -> None:
        def kill(*args: Any) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(story, "save_model", kill)
            killed(config)

    return train


ENDS = {
    "half an epoch": {"num_train_epochs": 1.5, "save_strategy": "steps", "save_steps": 4},
    "max_steps": {"max_steps": 5, "save_strategy": "steps", "save_steps": 3},
    "epochs": {"num_train_epochs": 2.0, "save_strategy": "epoch", "eval_strategy": "epoch"},
    "epochs measured, steps saved": {
        "num_train_epochs": 2.0, "eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 3,
    },
    "early stopping": {
        "num_train_epochs": 30.0, "learning_rate": 0.05, "eval_strategy": "epoch", "save_strategy": "epoch",
        "early_stopping_patience": 1, "load_best_model_at_end": True, "save_total_limit": 1,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "method"), [*((end, "full") for end in ENDS), ("epochs", "lora"), ("early stopping", "lora")]
)
def test_a_resume_at_the_end_trains_no_step_more(
    end: str, method: str, tmp_path: Path, model_folder: Path, write_rows: Any, no_saved_model: Callable[[Config], None]
) -> None:
    common = settings(
        model_folder, write_rows, per_device_train_batch_size=4, method=method, lora_r=2, **QUICK, **ENDS[end]
    )
    whole = hone.train(hone.load_config({**common, "output_dir": str(tmp_path / "whole")}))
    again = {**common, "output_dir": str(tmp_path / "again")}
    no_saved_model(again)
    resumed = hone.train(hone.load_config(again))
    file = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (resumed.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    assert lines(resumed) == lines(whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_a_resume_within_logs_and_stops_as_if_nothing_had_happened(
    step: int, tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    """Saved at every second step, logged at every third: the sum of the losses in between is in the checkpoint, too."""
    common = settings(model_folder, write_rows, per_device_train_batch_size=4, num_train_epochs=2.0, **QUICK)
    common |= {"save_strategy": "steps", "save_steps": 2, "logging_steps": 3, "eval_strategy": "epoch"}
    whole = hone.train(hone.load_config({**common, "output_dir": str(tmp_path / "whole")}))
    again = {**common, "output_dir": str(tmp_path / "again")}
    killed(again, KilledAt(step))
    resumed = hone.train(hone.load_config(again))
    assert weights(resumed.folder) == weights(whole.folder)
    assert lines(resumed) == lines(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "is_removed"), [(2, False), (3, True), (5, True), (5, False)])
def test_a_resume_remembers_frozen_blocks_as_the_undisturbed_run_did(
    step: int, is_removed: bool, tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    """Killed in the first and in the second of two epochs; the cache is not published, is, or is removed since."""
    common = settings(model_folder, write_rows, per_device_train_batch_size=8, num_train_epochs=2.0, **QUICK)
    common |= {"method": "freeze", "num_unfrozen_layers": 1, "unfreeze_embeddings": False}
    common |= {"save_strategy": "steps", "save_steps": 2}
    names = ("whole", "again")
    whole, again = ({**common, "output_dir": str(tmp_path / n), "token_cache_dir": str(tmp_path / f"{n}-tokens")}
                    for n in names)  # fmt: skip
    first = hone.train(hone.load_config(whole))
    assert "frozen cache" in (first.folder / "train.log").read_text()
    killed(again, KilledAt(step))
    if is_removed:
        shutil.rmtree(tmp_path / "again-tokens" / "prefix", ignore_errors=True)
    resumed = hone.train(hone.load_config(again))
    assert weights(resumed.folder) == weights(first.folder)
    assert lines(resumed) == lines(first)


@pytest.mark.slow
def test_patience_goes_on_counting(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    """Killed between the first and the second evaluation without improvement."""
    common = settings(model_folder, write_rows, num_train_epochs=30.0, learning_rate=0.05, **QUICK)
    common |= {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "early_stopping_patience": 2,
        "load_best_model_at_end": True,
    }
    whole = hone.train(hone.load_config({**common, "output_dir": str(tmp_path / "whole")}))
    steps = [line["step"] for line in whole.metric_lines() if "eval_loss" in line]
    again = {**common, "output_dir": str(tmp_path / "again")}
    killed(again, KilledAt(steps[-2]))
    resumed = hone.train(hone.load_config(again))
    assert lines(resumed) == lines(whole)
    assert weights(resumed.folder) == weights(whole.folder)


@pytest.mark.slow
def test_the_time_allowed_is_not_given_twice(
    tmp_path: Path, model_folder: Path, write_rows: Any, no_saved_model: Callable[[Config], None]
) -> None:
    config = settings(model_folder, write_rows, num_train_epochs=10000.0, output_dir=str(tmp_path / "run"), **QUICK)
    config |= {"max_train_seconds": 1.0, "save_strategy": "steps", "save_steps": 1_000_000}
    no_saved_model(config)
    run = Run(tmp_path / "run")
    ended = int(run.checkpoints()[-1].name.removeprefix("checkpoint-"))
    hone.train(hone.load_config(config))
    assert run.metric_lines()[-1]["step"] <= ended


# ---- what a checkpoint says of itself --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Config]:
    """A folder with a run that was killed at step 5 of 6, with checkpoints 2 and 4; and its config."""
    folder = tmp_path_factory.mktemp("interrupted")

    def write(name: str, rows: list[dict[str, Any]]) -> Path:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return folder / name

    config = settings(model_folder, write, per_device_train_batch_size=4, save_total_limit=9, **QUICK)
    config |= {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "output_dir": str(folder / "run")}
    config |= {"token_cache_dir": str(folder / "tokens")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "save", no_pickle)
        killed(config, KilledAt(5))
    return folder, config


def no_pickle(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a save pickles: for a moment, for nobody, and where it fails in words of its own")


@pytest.fixture
def resumable(interrupted: tuple[Path, Config], tmp_path: Path) -> tuple[Run, Config]:
    """A copy of it, to be damaged."""
    folder, config = interrupted
    shutil.copytree(folder / "run", tmp_path / "run")
    return Run(tmp_path / "run"), {**config, "output_dir": str(tmp_path / "run")}


def test_a_checkpoint_has_no_pickle_and_all_of_it_is_described(resumable: tuple[Run, Config]) -> None:
    newest = resumable[0].checkpoints()[-1]
    names = {path.name for path in newest.iterdir()}
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin", ".pkl"))]
    about = read_sealed(newest / COMPLETE)
    assert set(about["files"]) == names - {COMPLETE}
    assert about["step"] == 4 and not about["ended"] and about["versions"]["torch"] and about["world_size"] == 1
    assert checkpoint_problems(newest) == []


def test_a_run_whose_files_were_moved_goes_on_as_soon_as_its_config_says_where(resumable: tuple[Run, Config]) -> None:
    run, config = resumable
    resolved = run.folder / "config.resolved.yaml"
    here = resolved.read_text(encoding="utf-8")
    resolved.write_text(here.replace(config["train_file"], "/gone/train.jsonl"), encoding="utf-8")
    with pytest.raises(
        HoneError, match=r"write the new paths of train_file into .*config.resolved.yaml: then the same"
    ):
        hone.train(hone.load_config(config))
    resolved.write_text(here, encoding="utf-8")
    assert hone.train(hone.load_config(config)).status["status"] == "finished"


def test_another_sealed_file_in_the_place_of_the_status_is_named(resumable: tuple[Run, Config]) -> None:
    """Its seal is right, and it says nothing of a run."""
    folder = resumable[0].folder
    shutil.copyfile(folder / "checkpoint-4" / COMPLETE, folder / "status.json")
    with pytest.raises(HoneError, match=r"status.json: says nothing of a run"):
        _ = resumable[0].status
    write_report(folder)
    assert "status.json: says nothing of a run" in (folder / "report.md").read_text(encoding="utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(path: Path) -> None:
    """The file of the checkpoint before it."""
    shutil.copyfile(path.parents[1] / "checkpoint-2" / path.name, path)


DAMAGES: list[Callable[[Path], None]] = [flip, cut_off, swap, Path.unlink]
STATES = ["model.safetensors", "optimizer.safetensors", "optimizer.json", "random.safetensors", "trainer_state.json",
          "complete.json"]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", STATES)
def test_a_damaged_checkpoint_is_named(
    name: str, damage: Callable[[Path], None], resumable: tuple[Run, Config]
) -> None:
    newest = resumable[0].checkpoints()[-1]
    before = (newest / name).read_bytes()
    damage(newest / name)
    if (newest / name).is_file() and (newest / name).read_bytes() == before:
        pytest.skip("the same at every step")
    if name == COMPLETE and damage is Path.unlink:
        assert resumable[0].checkpoints()[-1].name == "checkpoint-2"
    elif name != COMPLETE or damage is not swap:  # another's description is whole, and fits no file
        assert checkpoint_problems(newest)[0].startswith(name)
    else:
        assert checkpoint_problems(newest)


@pytest.mark.slow
def test_the_newest_valid_checkpoint_is_taken(
    resumable: tuple[Run, Config], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    run, config = resumable
    whole = hone.train(hone.load_config({**config, "output_dir": str(tmp_path / "whole")}))
    flip(run.checkpoints()[-1] / "optimizer.safetensors")
    with caplog.at_level(logging.INFO, "hone"):
        hone.train(hone.load_config(config))
    assert "checkpoint-4/optimizer.safetensors: the content is not what was written" in caplog.text
    assert "resuming from checkpoint-2" in caplog.text
    assert weights(run.folder) == weights(whole.folder) and lines(run) == lines(whole)
    assert (run.folder / "checkpoint-4.damaged").is_dir() and (run.folder / "checkpoint-4").is_dir()


@pytest.mark.slow
def test_what_a_kill_leaves_is_gone_after_the_end(resumable: tuple[Run, Config]) -> None:
    run, config = resumable
    for name in (".saving/checkpoint-6", ".model.tmp", "checkpoint-5"):
        (run.folder / name).mkdir(parents=True)
        (run.folder / name / "half").write_text("x")
    for name in (".status.json.tmp-1", "eval/.base.json.tmp-1"):
        (run.folder / name).write_text("{")
    hone.train(hone.load_config(config))
    left = [path for path in run.folder.rglob("*") if ".tmp" in path.name or path.name in ("half", ".saving")]
    assert left == [] and not (run.folder / "checkpoint-5").exists()


@pytest.mark.slow
def test_a_saved_model_that_was_damaged_is_made_again(
    resumable: tuple[Run, Config], caplog: pytest.LogCaptureFixture
) -> None:
    run, config = resumable
    hone.train(hone.load_config(config))
    before = weights(run.folder)
    assert saved_problems(run.folder) == []
    flip(run.folder / "model.safetensors")
    (run.folder / "eval" / "tuned.json").unlink()
    run.update(stage="saved", status="interrupted")
    hone.train(hone.load_config(config))
    assert "model.safetensors: the content is not what was written" in caplog.text
    assert weights(run.folder) == before


@pytest.mark.slow
def test_a_base_whose_numbers_have_gone_is_measured_again(
    resumable: tuple[Run, Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the training is over; without it nothing could be compared, and nobody would say so."""
    config = {**resumable[1], "eval_base": True, "output_dir": str(tmp_path / "whole")}
    run = hone.train(hone.load_config(config))
    before = run.base
    for name in ("base", "tuned", "compare"):
        run.file_of(name).unlink()
    run.update(stage="saved", status="interrupted")
    again = hone.train(hone.load_config(config))
    assert "base.json is not there: the base is measured again" in caplog.text
    assert before and again.base and again.base.metrics == before.metrics and run.file_of("compare").is_file()


def test_a_disk_that_returns_other_bytes_is_named(
    resumable: tuple[Run, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older checkpoint is still there then."""
    run, config = resumable

    def rot(path: Path) -> None:
        if path.name == "optimizer.safetensors":
            flip(path)

    monkeypatch.setattr(checkpoint, "_forget", rot)
    with pytest.raises(HoneError, match="other bytes than were written: optimizer"):
        hone.train(hone.load_config({**config, "save_total_limit": 1}))
    assert [path.name for path in run.checkpoints()] == ["checkpoint-2", "checkpoint-4"]


# ---- the start of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["mkdir", "config.resolved.yaml", "config.yaml"])
def test_a_start_that_was_killed_does_not_claim_the_folder(
    after: str, resumable: tuple[Run, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hone.runs as runs

    config = hone.load_config({**resumable[1], "output_dir": str(tmp_path / "new")})
    write = runs.write_text_atomic

    def kill(path: Path, text: str) -> None:
        if path.name == after:
            path.with_name(f".{path.name}.tmp-1").write_text(text[:9])
            raise Killed
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_text_atomic", kill)
        if after == "mkdir":
            (tmp_path / "new").mkdir()
        else:
            with pytest.raises(Killed), runs.open_run(config):
                pass
    with runs.open_run(config) as run:
        assert {"config.yaml", "config.resolved.yaml"} <= {path.name for path in run.folder.iterdir()}


def test_two_starts_at_once(resumable: tuple[Run, Config]) -> None:
    config = hone.load_config(resumable[1])
    with open_run(config), pytest.raises(HoneError, match="another process is training"), open_run(config):
        pass


@pytest.mark.slow
def test_what_a_kill_in_the_report_leaves_is_gone(resumable: tuple[Run, Config]) -> None:
    """The run is finished by then: the same command trains nothing."""
    run, config = resumable
    hone.train(hone.load_config(config))
    for name in (".report.md.tmp-1", ".status.json.tmp-1"):
        (run.folder / name).write_text("x")
    hone.train(hone.load_config(config))
    assert not list(run.folder.glob(".*.tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut_off, Path.unlink], ids=lambda damage: damage.__name__)
def test_damaged_metrics_are_named_and_never_filled_with_zeros(
    damage: Callable[[Path], None], resumable: tuple[Run, Config], caplog: pytest.LogCaptureFixture
) -> None:
    run, config = resumable
    damage(run.folder / "metrics.jsonl")
    hone.train(hone.load_config(config))
    assert "metrics.jsonl: the lines up to step 4 are not what was written" in caplog.text
    if damage is not flip:
        assert run.metric_lines()[-1]["step"] == 6
    assert b"\0" not in (run.folder / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_report_that_was_not_written_is(resumable: tuple[Run, Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed just after "finished"."""
    run, config = resumable

    def kill(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(story, "write_report_or_say", kill)
        killed(config)
    assert run.status["stage"] == "finished" and not (run.folder / "report.html").exists()
    hone.train(hone.load_config(config))
    assert (run.folder / "report.html").is_file() and (run.folder / "report.md").is_file()


# ---- the rehearsal ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rehearsal_changes_nothing(
    resumable: tuple[Run, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = {**resumable[1], "save_strategy": "no"}
    plain = hone.train(hone.load_config({**config, "output_dir": str(tmp_path / "plain")}))
    monkeypatch.setattr(saving, "REHEARSED_FROM_S", 0.0)
    monkeypatch.setattr(saving, "SLOW_DISK", 1e12)
    with caplog.at_level(logging.INFO, "hone"):
        run = hone.train(hone.load_config({**config, "output_dir": str(tmp_path / "rehearsed")}))
    assert "saving was rehearsed" in caplog.text and not (run.folder / ".saving").exists()
    assert weights(run.folder) == weights(plain.folder) and lines(run) == lines(plain)


@pytest.mark.slow
@pytest.mark.parametrize("breaks", ["write", "read"])
def test_what_cannot_be_saved_is_known_after_the_first_step(
    breaks: str, resumable: tuple[Run, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    def rot(path: Path) -> None:
        if path.name == "model.safetensors":
            flip(path)

    monkeypatch.setattr(saving, "REHEARSED_FROM_S", 0.0)
    monkeypatch.setattr(saving, "SLOW_DISK", 1e12)
    if breaks == "write":
        monkeypatch.setattr(saving, "write_state", full)
    else:
        monkeypatch.setattr(checkpoint, "_forget", rot)
    run = Run(tmp_path / "new")
    with pytest.raises(HoneError, match="the disk is full" if breaks == "write" else "other bytes than were written"):
        hone.train(hone.load_config({**resumable[1], "output_dir": str(run.folder)}))
    assert len(run.metric_lines()) <= 1 and not (run.folder / ".saving").exists()


@pytest.mark.slow
def test_files_of_a_run_that_are_others_are_named(resumable: tuple[Run, Config]) -> None:
    """Each was a traceback."""
    run, config = resumable
    env = (run.folder / "env.json").read_bytes()
    (run.folder / "env.json").write_text('{"method": "full"}')
    with pytest.raises(HoneError, match=r"env.json: says nothing of the run's data"):
        hone.train(hone.load_config(config))
    (run.folder / "env.json").write_bytes(env)
    hone.train(hone.load_config(config))
    (run.folder / "template.json").write_text("{}")
    with pytest.raises(HoneError, match=r"template.json: names no template"):
        hone.generate(str(run.folder), "add 1 and 2:", max_new_tokens=2)


# ---- overwrite -------------------------------------------------------------------------------------------------------


def dies_after(n: int, function: Callable[..., None]) -> Callable[..., None]:
    """The function, in a process that is killed before call n + 1."""
    calls = iter(range(n))

    def call(*args: Any, **kwargs: Any) -> None:
        if next(calls, None) is None:
            raise Killed
        function(*args, **kwargs)

    return call


def test_killed_while_an_old_run_is_deleted_the_same_command_goes_on(
    resumable: tuple[Run, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file is the last that was deleted: `overwrite=true` still finds a run there, or an empty folder."""
    kept = resumable[0].folder.rename(tmp_path / "kept")
    config = hone.load_config({**resumable[1], "overwrite": True})
    for n_deleted in range(sum(path.is_file() for path in kept.rglob("*"))):
        shutil.rmtree(resumable[0].folder, ignore_errors=True)
        shutil.copytree(kept, resumable[0].folder)
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", dies_after(n_deleted, os.unlink))
            with pytest.raises(Killed), open_run(config):
                pass
        with open_run(config) as run:
            assert run.checkpoints() == [] and run.status["status"] == "unknown"
