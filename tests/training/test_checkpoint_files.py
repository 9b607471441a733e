"""Checkpoints as files, without a training: which is taken, what is swept, what is synced, which go."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from hone.errors import HoneError
from hone.files import read_sealed
from hone.manifest import MANIFEST, describe_files
from hone.models.adapter import BASE, describe_base
from hone.models.classifier_head import LABELS
from hone.runs import COMPLETE, SAVING, Run
from hone.training import checkpoint, saving
from hone.training.callbacks import Progress
from hone.training.checkpoint import (
    DAMAGED,
    MODEL_ASIDE,
    Reached,
    checkpoint_to_resume,
    reached_at,
    refuse_other_base,
    refuse_unlike,
    restore,
    save_model,
    saved_problems,
    seal_checkpoint,
    seal_run,
    sweep,
    written_metrics,
)
from hone.training.saving import SavingTrainer


def reached(step: int, metrics: bytes = b"") -> Reached:
    return Reached(
        step=step,
        ended=False,
        world_size=1,
        slots=1,
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
    (written / "model.safetensors").chmod(0o600)  # as safetensors does
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
    (older / COMPLETE).write_text("{}")
    assert checkpoint_to_resume(run, "auto", nowhere) is None
    assert (run.folder / f"checkpoint-2{DAMAGED}").is_dir()


def test_what_lives_outside_the_trainer_goes_back(run: Run) -> None:
    progress, metrics = Progress(tokens=99, supervised_tokens=98, used_s=97.0), run.folder / "metrics.jsonl"
    newest = add(run, 2)
    assert restore(run, newest, progress) == reached(2)
    assert (progress.tokens, progress.supervised_tokens, progress.used_s) == (10, 5, 1.0)
    assert not metrics.exists()
    metrics.write_bytes(b'{"step": 3}\n')
    restore(run, newest, progress)
    assert metrics.read_bytes() == b"", "lines that were written after it"


@pytest.mark.parametrize(
    ("there", "left"),
    [
        (b'{"step": 1}\n{"step": 2}\n{"step": 3}\n', b'{"step": 1}\n{"step": 2}\n'),
        (b'{"step": 1}\n{"st', b'{"step": 1}\n'),
        (b'{"st', b""),
    ],
)
def test_whole_lines_are_kept(there: bytes, left: bytes, run: Run) -> None:
    written = run.folder / SAVING
    written.mkdir()
    seal_checkpoint(written, run.folder / "checkpoint-2", reached(2, b'{"step": 1}\n{"step": 2}\n'))
    (run.folder / "metrics.jsonl").write_bytes(there)
    restore(run, run.folder / "checkpoint-2", Progress())
    assert (run.folder / "metrics.jsonl").read_bytes() == left


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
    modes = {path.stat().st_mode for path in (run.folder / "checkpoint-4").iterdir() if path.is_file()}
    assert len(modes) == 1, "whoever may read the one may read the other"


def test_other_bytes_than_were_written_are_named_and_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "problems", lambda folder, files, hashes: ["model.safetensors: other bytes"])
    with pytest.raises(HoneError, match=r"the disk returned other bytes .*: model\.safetensors"):
        add(run, 4)
    assert not (run.folder / "checkpoint-4").exists()

    def disk_gone(folder: Path, files: Any, hashes: bool) -> list[str]:
        shutil.rmtree(folder)
        return ["model.safetensors: missing"]

    monkeypatch.setattr(checkpoint, "problems", disk_gone)
    with pytest.raises(
        HoneError, match="missing"
    ):  # what is said is the first error, not that there is nothing to delete
        add(run, 4)
    monkeypatch.undo()
    (run.folder / "x").write_text("x")
    with pytest.raises(HoneError):
        refuse_unlike(run.folder, {"x": {"bytes": 1, "sha256": "0"}})


def test_files_are_read_again_from_the_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is synced and its copy in memory dropped, before any is read; other bytes of the same size are found."""
    for name in "xy":
        (run.folder / name).write_text(name)
    files, order = describe_files(run.folder, "xy"), []
    monkeypatch.setattr(checkpoint, "fsync_path", lambda path: order.append(f"sync {path.name}"))
    monkeypatch.setattr(checkpoint, "_forget", lambda path: order.append(f"forget {path.name}"))
    refuse_unlike(run.folder, files)
    assert order == ["sync x", "forget x", "sync y", "forget y"]
    (run.folder / "y").write_text("z")
    with pytest.raises(HoneError, match="y: the content"):
        refuse_unlike(run.folder, files)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="asked of Linux only")
def test_the_system_is_asked_to_drop_its_copy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *args: asked.append(args))
    checkpoint._forget(run.folder / "not there")
    checkpoint._forget(run.folder)
    (run.folder / "x").write_text("x")
    checkpoint._forget(run.folder / "x")
    ((fd, *rest),) = asked
    assert rest == [0, 0, os.POSIX_FADV_DONTNEED], "all of it"
    with pytest.raises(OSError):
        os.fstat(fd)
    monkeypatch.delattr(os, "posix_fadvise")
    checkpoint._forget(run.folder / "x")


def test_what_is_half_written_is_swept_and_nothing_else(run: Run) -> None:
    sweep(run)  # where there is nothing
    kept = [add(run, 2), run.folder / "metrics.jsonl", run.folder / "eval" / "base.json", run.folder / "checkpoint-x"]
    kept.insert(1, run.folder / "checkpoint-7")  # somebody's file
    for path in kept[1:4]:
        path.write_text("{}")
    kept[4].mkdir()
    gone = [run.folder / ".config.yaml.tmp-1", run.folder / "eval" / ".base.json.tmp-22"]
    for path in gone:
        path.write_text("{")
    for name in (SAVING, MODEL_ASIDE, "checkpoint-3", "checkpoint-30"):
        (run.folder / name / "inner").mkdir(parents=True, exist_ok=True)
        gone.append(run.folder / name)
    sweep(run)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)


def test_what_another_process_renames_meanwhile_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that is being written, of which only its reader knows."""
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [folder / ".report.md.tmp-1"])
    sweep(run)


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


# ---- the final model -------------------------------------------------------------------------------------------------


def test_a_model_is_written_aside_synced_and_moved_its_weights_last(
    run: Run, tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = checkpoint.fsync_path, Path.replace

    def synced(path: Path) -> None:
        order.append(f"sync {path.name}")
        sync(path)

    def moved(path: Path, target: Path) -> Path:
        order.append(f"move {path.name}")
        return replace(path, target)

    monkeypatch.setattr(checkpoint, "fsync_path", synced)
    monkeypatch.setattr(Path, "replace", lambda path, target: moved(path, target) if target.parent == run.folder else
                        replace(path, target))  # fmt: skip
    (run.folder / MODEL_ASIDE / "of a killed process").mkdir(parents=True)
    model = tiny_model("gpt2")
    save_model(model, tokenizer, "plain", run.folder)
    names = {path.name for path in run.folder.iterdir()} - {"eval", MANIFEST}
    assert names >= {"model.safetensors", "config.json", "tokenizer.json", "template.json"}
    assert not names & {LABELS, BASE, MODEL_ASIDE}
    moves = [word for word in order if word.startswith("move") and MANIFEST not in word]
    assert moves[-1] == "move model.safetensors" and {f"move {name}" for name in names} == set(moves)
    assert {f"sync {name}" for name in names} <= set(order[: order.index(moves[0])])
    assert f"sync {run.folder.name}" in order[order.index(moves[-1]) :]
    assert json.loads((run.folder / "template.json").read_text()) == {"template": "plain"}
    about = read_sealed(run.folder / MANIFEST)
    assert set(about["files"]) == names and about["versions"]["torch"] and saved_problems(run.folder) == []


def test_all_of_a_saved_model_is_read_however_large(
    run: Run, tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny_model("gpt2"), tokenizer, "plain", run.folder)
    monkeypatch.setattr("hone.manifest.READ_WHOLE_BYTES", 0)
    content = bytearray((run.folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run.folder / "model.safetensors").write_bytes(content)
    assert saved_problems(run.folder) == ["model.safetensors: the content is not what was written"]


def test_the_rights_of_saved_weights_are_those_of_new_files(
    run: Run, tiny_model: Callable[..., Any], tokenizer: Any
) -> None:
    save_model(tiny_model("gpt2"), tokenizer, "plain", run.folder)
    (run.folder / "new").touch()
    assert (run.folder / "model.safetensors").stat().st_mode == (run.folder / "new").stat().st_mode


def test_a_model_that_cannot_be_written_leaves_the_old_one(
    run: Run, tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    def full_at_once(*args: Any, **kwargs: Any) -> None:
        full()

    monkeypatch.setattr(checkpoint, "save_tokenizer", full)
    with pytest.raises(HoneError, match="the disk is full"):
        save_model(model, tokenizer, "plain", run.folder)
    monkeypatch.setattr(model, "save_pretrained", full_at_once)
    with pytest.raises(HoneError, match="the disk is full"):
        save_model(model, tokenizer, "plain", run.folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("inf")
    with pytest.raises(HoneError, match="no longer finite"):
        save_model(model, tokenizer, "plain", run.folder)
    assert [path.name for path in run.folder.iterdir()] == ["eval"]


def test_a_classifier_has_its_labels_and_an_adapter_its_base_and_no_card(run: Run, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    small = {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": len(tokenizer), "pad_token_id": 3}
    config = AutoConfig.for_model("gpt2", **small, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    model: Any = AutoModelForSequenceClassification.from_config(config)
    adapter: Any = get_peft_model(model, LoraConfig(r=2, task_type="SEQ_CLS", fan_in_fan_out=True))
    save_model(adapter, tokenizer, "plain", run.folder)
    assert json.loads((run.folder / LABELS).read_text()) == {"labels": ["no", "yes"], "pad_token_id": 3}
    assert json.loads((run.folder / BASE).read_text()) == describe_base(adapter)
    assert (run.folder / "README.md").is_file(), "the adapter library writes one"
    described = set(read_sealed(run.folder / MANIFEST)["files"])
    assert described >= {"adapter_model.safetensors", LABELS, BASE} and "README.md" not in described

    refuse_other_base(adapter, run.folder, "base")
    with torch.no_grad():
        next(adapter.get_base_model().transformer.h[0].attn.c_attn.parameters()).add_(1)
    with pytest.raises(HoneError, match="was trained on other weights") as raised:
        refuse_other_base(adapter, run.folder, "base")
    assert "overwrite=true" in str(raised.value.fix)
    refuse_other_base(model.transformer, run.folder, "base")  # no adapter: it has its weights from the checkpoint


def test_configs_and_what_was_measured_are_described_at_the_end(run: Run) -> None:
    (run.folder / MANIFEST).write_text("{}")
    with pytest.raises(HoneError):
        seal_run(run)
    checkpoint.write_sealed(run.folder / MANIFEST, {"versions": {"torch": "2"}, "files": {}})
    for name in ("config.yaml", "metrics.jsonl", "eval/base.json", "train.log"):
        (run.folder / name).write_text("{}")
    (run.folder / "eval" / "inner").mkdir()
    seal_run(run)
    about = read_sealed(run.folder / MANIFEST)
    assert set(about["measured"]) == {"config.yaml", "metrics.jsonl", "eval/base.json"}
    assert about["versions"] == {"torch": "2"} and about["files"] == {}


# ---- rotation and the place aside ------------------------------------------------------------------------------------


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
