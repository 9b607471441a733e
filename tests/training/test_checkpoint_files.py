"""Checkpoints as files, without a training: which is taken, what is swept, what is synced, which go."""

import hashlib
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone.errors import HoneError
from hone.runs import COMPLETE, SAVING, Run
from hone.training import checkpoint, saving
from hone.training.checkpoint import (
    DAMAGED,
    MODEL_ASIDE,
    Reached,
    checkpoint_to_resume,
    reached_at,
    refuse_unlike,
    saved_problems,
    seal_checkpoint,
    sweep,
    written_metrics,
)
from hone.training.saving import SavingTrainer


def reached(step: int, metrics: bytes = b"") -> Reached:
    return Reached(
        step=step,
        ended=False,
        world_size=1,
        metrics_bytes=len(metrics),
        metrics_sha256=hashlib.sha256(metrics).hexdigest() if metrics else None,
        loss_sum=0.5,
        logged_step=step,
        tokens=10,
        supervised_tokens=5,
        used_s=1.0,
    )


def add(run: Run, step: int) -> Path:
    written = run.folder / SAVING / f"checkpoint-{step}"
    (written / "inner").mkdir(parents=True)
    (written / "model.safetensors").write_bytes(bytes([step]) * 50)
    (written / "inner" / "state.json").write_text("{}")
    seal_checkpoint(written, run.folder / written.name, reached(step))
    return run.folder / written.name


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "eval").mkdir()
    return Run(tmp_path)


def nowhere(key: str) -> None:
    return None


def test_the_one_that_is_wanted_is_taken(run: Run) -> None:
    older, newer = add(run, 2), add(run, 10)
    assert checkpoint_to_resume(run, str(older), nowhere) == older
    assert checkpoint_to_resume(run, "never", nowhere) is None
    assert checkpoint_to_resume(run, "auto", nowhere) == newer
    with pytest.raises(HoneError, match="no complete checkpoint there"):
        checkpoint_to_resume(run, str(run.folder / "checkpoint-3"), nowhere)
    (older / "model.safetensors").write_bytes(b"\x02" * 49 + b"\x03")
    with pytest.raises(HoneError, match=r"this checkpoint is damaged: model\.safetensors"):
        checkpoint_to_resume(run, str(older), nowhere)
    assert older.is_dir() and newer.is_dir()


def test_a_damaged_one_is_set_aside_also_where_one_lies_already(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = add(run, 2), add(run, 10)
    (newer / "inner" / "state.json").unlink()
    (run.folder / f"checkpoint-10{DAMAGED}" / "old").mkdir(parents=True)
    assert checkpoint_to_resume(run, "auto", nowhere) == older
    assert not newer.exists() and (run.folder / f"checkpoint-10{DAMAGED}" / COMPLETE).is_file()
    assert "state.json" in caplog.text and "checkpoint-10.damaged" in caplog.text
    assert reached_at(older) == reached(2)


def test_all_of_a_checkpoint_is_synced_before_it_has_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    plain = checkpoint.fsync_path

    def sync(path: Path) -> None:
        synced.append((path.name, (run.folder / "checkpoint-4").exists()))
        plain(path)

    monkeypatch.setattr(checkpoint, "fsync_path", sync)
    add(run, 4)
    before = {name for name, is_there in synced if not is_there}
    assert before >= {"model.safetensors", "state.json", "inner", COMPLETE, "checkpoint-4"}
    assert (run.folder.name, True) in synced, "and the folder that has the new name"


def test_other_bytes_than_were_written_are_named_and_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "problems", lambda folder, files, hashes: ["model.safetensors: other bytes"])
    with pytest.raises(HoneError, match=r"the disk returned other bytes .*: model\.safetensors"):
        add(run, 4)
    assert not (run.folder / "checkpoint-4").exists()
    (run.folder / "x").write_text("x")
    with pytest.raises(HoneError):
        refuse_unlike(run.folder, {"x": {"bytes": 1, "sha256": "0"}})


def test_what_is_half_written_is_swept_and_nothing_else(run: Run) -> None:
    sweep(run)  # where there is nothing
    kept = [add(run, 2), run.folder / "metrics.jsonl", run.folder / "eval" / "base.json", run.folder / "checkpoint-x"]
    for path in kept[1:3]:
        path.write_text("{}")
    kept[3].mkdir()
    gone = [run.folder / ".config.yaml.tmp-1", run.folder / "eval" / ".base.json.tmp-22"]
    for path in gone:
        path.write_text("{")
    for name in (SAVING, MODEL_ASIDE, "checkpoint-3"):
        (run.folder / name / "inner").mkdir(parents=True, exist_ok=True)
        gone.append(run.folder / name)
    sweep(run)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)


def test_metrics_up_to_a_checkpoint_and_whether_they_are_those(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    lines = b'{"step": 1}\n{"step": 2}\n'
    (run.folder / "metrics.jsonl").write_bytes(lines + b'{"step": 3}\n')
    with caplog.at_level(logging.WARNING, "hone"):
        assert written_metrics(run, reached(2, lines)) == lines
        assert written_metrics(run, reached(0)) == b""
        assert not caplog.text
        written_metrics(run, reached(2, lines.replace(b"1", b"7")))
    assert "the lines up to step 2 are not what was written" in caplog.text


def test_a_saved_model_without_its_manifest(run: Run) -> None:
    assert saved_problems(run.folder) == ["manifest.json: missing"]


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, None, [9]), (2, None, [6, 9]), (1, 3, [3, 9]), (2, 9, [6, 9]), (None, None, [3, 6, 9]), (5, None, [3, 6, 9])],
)
def test_the_newest_are_kept_and_the_best(keep: int | None, best: int | None, left: list[int], run: Run) -> None:
    for step in (3, 6, 9):
        add(run, step)
    state = SimpleNamespace(best_model_checkpoint=best and str(run.folder / f"checkpoint-{best}"))
    SavingTrainer._rotate(SimpleNamespace(keep_checkpoints=keep, state=state, run=run))  # type: ignore[arg-type]
    assert [int(path.name[11:]) for path in run.checkpoints()] == left
    assert not (run.folder / SAVING).exists() or not list((run.folder / SAVING).glob("model*"))


def test_a_short_training_and_one_of_several_processes_rehearse_nothing(run: Run) -> None:
    alone: Any = SimpleNamespace(args=SimpleNamespace(world_size=1))
    SavingTrainer.rehearse(alone, saving.REHEARSED_FROM_S - 1)
    several: Any = SimpleNamespace(args=SimpleNamespace(world_size=2))
    SavingTrainer.rehearse(several, 10 * saving.REHEARSED_FROM_S)
    with pytest.raises(AttributeError):  # it would look at the model
        SavingTrainer.rehearse(alone, saving.REHEARSED_FROM_S)


def test_the_place_aside_is_left_again(run: Run) -> None:
    trainer: Any = SimpleNamespace(run=run, args=SimpleNamespace(should_save=True), _written_to=None)
    with pytest.raises(OSError), SavingTrainer._aside(trainer) as aside:
        assert SavingTrainer._get_output_dir(trainer, None) == str(aside)
        aside.mkdir()
        raise OSError
    assert trainer._written_to is None and not (run.folder / SAVING).exists()
    assert SavingTrainer._get_output_dir(trainer, None) == str(run.folder)
