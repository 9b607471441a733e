"""Saving and resuming by themselves: a trainer of a tiny model in one process, and stubs of what it has no need of."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from hone.errors import HoneError
from hone.models.adapter import BASE, describe_base
from hone.runs import COMPLETE, SAVING, Run, checkpoint_problems
from hone.training import saving
from hone.training.callbacks import Progress
from hone.training.checkpoint import reached_at, restore
from hone.training.saving import Rehearsal, Resumed, SavingTrainer
from hone.training.trainer import RunTrainer

DROPOUT = {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2}
Build = Callable[..., RunTrainer]


class Counting(RunTrainer):
    """Somebody else's trainer within a run, which counts what it trains on."""

    losses: tuple[float, ...] = ()  # of its evaluations, one after the other

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self.progress.tokens += inputs["input_ids"].numel()
        self.progress.supervised_tokens += len(inputs["input_ids"])
        self.progress.used_s += 0.5
        return super().training_step(model, inputs, num_items_in_batch)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        number = self.state.global_step // 3 - 1
        self.measure = lambda model: {"loss": self.losses[number]}
        return super().evaluate(*args, **kwargs)


@pytest.fixture
def build(tiny_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Build:
    """build("name") -> a trainer in the run folder of that name: 6 steps, 3 an epoch, with dropout and a schedule."""

    def make(name: str, *, keep: int | None = None, losses: tuple[float, ...] = (), **more: Any) -> RunTrainer:
        (tmp_path / name).mkdir(exist_ok=True)
        rows = [{"input_ids": torch.arange(i, i + 5), "labels": torch.arange(i, i + 5)} for i in range(6)]
        given: dict[str, Any] = {
            "output_dir": str(tmp_path / name), "use_cpu": True, "per_device_train_batch_size": 2, "max_steps": 6,
            "save_steps": 2, "save_strategy": "steps", "logging_steps": 3, "report_to": "none", "disable_tqdm": True,
            "learning_rate": 1e-2, "lr_scheduler_type": "cosine", "seed": 5,
        }  # fmt: skip
        trainer = Counting(
            model=tiny_model("gpt2", **DROPOUT), args=TrainingArguments(**{**given, **more}), train_dataset=rows,
            eval_dataset=rows, processing_class=tokenizer,
            data_collator=lambda items: {key: torch.stack([item[key] for item in items]) for key in items[0]},
        )  # fmt: skip
        trainer.enter(Run(tmp_path / name), measure=None, keep_checkpoints=keep)
        trainer.losses = losses
        return trainer

    return make


class Killed(BaseException):
    pass


class KilledAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


# ---- a training that is resumed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 5])
def test_a_resume_has_the_optimizer_the_schedule_the_dropout_and_the_losses(build: Build, step: int) -> None:
    whole = build("whole")
    whole.train()
    first = build("again")
    first.add_callback(KilledAt(step))
    with pytest.raises(Killed):
        first.train()
    newest = first.run.checkpoints()[-1]
    assert checkpoint_problems(newest) == [] and newest.name == f"checkpoint-{step // 2 * 2}"
    again = build("again")
    again.resumed = restore(again.run, newest, again.progress)
    torch.manual_seed(99)  # whatever was drawn before
    again.train(resume_from_checkpoint=str(newest))
    assert same(parameters(again), parameters(whole))
    logged = [{k: line[k] for k in ("step", "loss", "learning_rate") if k in line} for line in whole.state.log_history]
    there = [{k: line[k] for k in ("step", "loss", "learning_rate") if k in line} for line in again.state.log_history]
    assert there[:2] == logged[:2] and len(logged[0]) == 3
    assert again.progress.tokens == whole.progress.tokens == 60 and again.progress.supervised_tokens == 12
    assert again.progress.used_s == whole.progress.used_s == 3.0


def test_what_a_checkpoint_says_and_holds(build: Build) -> None:
    trainer = build("run")
    metrics = trainer.run.folder / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n')
    trainer.add_callback(KilledAt(5))
    with pytest.raises(Killed):
        trainer.train()
    reached = reached_at(trainer.run.checkpoints()[-1])
    assert (reached.step, reached.ended, reached.world_size, reached.logged_step) == (4, False, 1, 3)
    assert (reached.tokens, reached.supervised_tokens, reached.used_s) == (40, 8, 2.0)
    assert reached.metrics_bytes == metrics.stat().st_size and reached.metrics_sha256
    assert 0 < reached.loss_sum < 20, "of the one step since the last line"
    names = {path.name for path in trainer.run.checkpoints()[-1].iterdir()}
    assert names >= {"model.safetensors", "tokenizer.json", "optimizer.json", "scheduler.json", "random.json"}
    assert not [name for name in names if name.startswith("scaler") or name == TRAINING_ARGS_NAME]
    assert not (trainer.run.folder / SAVING).exists() and trainer._written_to is None


def test_no_lines_yet(build: Build) -> None:
    trainer = build("run", max_steps=2)
    trainer.train()
    reached = reached_at(trainer.run.checkpoints()[-1])
    assert (reached.metrics_bytes, reached.metrics_sha256, reached.ended) == (0, None, True)


def test_a_checkpoint_that_is_there_is_not_written_again(build: Build) -> None:
    trainer = build("run", max_steps=2)
    trainer.train()
    before = (trainer.run.checkpoints()[-1] / COMPLETE).stat().st_mtime_ns
    paused = trainer.progress.paused_s
    trainer._save_checkpoint(trainer.model, None)
    assert (trainer.run.checkpoints()[-1] / COMPLETE).stat().st_mtime_ns == before
    assert trainer.progress.paused_s == paused and 0 < paused < 60


def test_weights_that_are_no_numbers_are_not_saved(build: Build) -> None:
    trainer = build("run")
    with torch.no_grad():
        next(trainer.model.parameters())[0] = float("nan")
    with pytest.raises(HoneError, match="no longer finite"):
        trainer._save_checkpoint(trainer.model, None)
    assert not list(trainer.run.folder.iterdir())


@pytest.mark.parametrize("best", [True, False])
def test_the_end_is_taken_without_a_step(build: Build, best: bool) -> None:
    """Its last weights, or those of the best checkpoint, which has the name that it was given at last."""
    settings = {"eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, "load_best_model_at_end": best}
    settings |= {"metric_for_best_model": "loss", "greater_is_better": False}
    trainer = build("run", losses=(1.0, 2.0), keep=1, **settings)
    trainer.train()
    assert [path.name for path in trainer.run.checkpoints()] == ["checkpoint-3", "checkpoint-6"], "the best is kept"
    end = trainer.run.checkpoints()[-1]
    again = build("run", losses=(1.0, 2.0), **settings)
    assert not same(parameters(again), parameters(trainer))
    again.finish(end)
    assert same(parameters(again), parameters(trainer)) and again.state.global_step == 6
    state = json.loads((trainer.run.folder / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(trainer.run.folder / "checkpoint-3")


def test_patience_is_counted_on(build: Build) -> None:
    """A loss that rises at the second evaluation, the killed process's last, and again at the third."""
    settings = {"eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, "max_steps": 30}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    trainers = []
    for _ in range(2):
        trainers.append(build("run", losses=(1.0, 2.0, 3.0, 4.0, 5.0), **settings, **best))
        trainers[-1].add_callback(EarlyStoppingCallback(2))
    trainers[0].add_callback(KilledAt(7))
    with pytest.raises(Killed):
        trainers[0].train()
    newest = trainers[0].run.checkpoints()[-1]
    assert newest.name == "checkpoint-6"
    trainers[1].train(resume_from_checkpoint=str(newest))
    assert trainers[1].state.global_step == 9
    assert reached_at(trainers[1].run.checkpoints()[-1]).ended


# ---- several processes, sharded engines, scalers, adapters: by stubs -------------------------------------------------


def test_only_the_first_process_completes_and_rotates(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build("run")
    done: list[str] = []
    monkeypatch.setattr(Trainer, "_save_checkpoint", lambda self, model, trial: done.append("written"))
    monkeypatch.setattr(trainer, "_complete", lambda written, folder: done.append(f"{written.name} complete"))
    monkeypatch.setattr(trainer, "_rotate", lambda: done.append("rotated"))
    trainer._save_checkpoint(trainer.model, None)
    assert done == ["written", "checkpoint-0 complete", "rotated"]
    done.clear()
    monkeypatch.setattr("hone.training.saving.from_primary", lambda compute: None)  # what the others do: wait
    monkeypatch.setattr(trainer, "args", SimpleNamespace(should_save=False))
    (trainer.run.folder / SAVING).mkdir()
    trainer._save_checkpoint(trainer.model, None)
    assert done == ["written"]
    assert (trainer.run.folder / SAVING).is_dir(), "the first process may still be at it"


def test_weights_and_states_are_written_without_the_trainer_s_own(build: Build, tmp_path: Path) -> None:
    trainer = build("run")
    trainer.create_optimizer_and_scheduler(2)
    folder = tmp_path / "written"
    trainer._save(str(folder))
    trainer._save_rng_state(str(folder))
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._load_optimizer_and_scheduler(str(folder))
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "tokenizer.json", "optimizer.json", "scheduler.json", "random.json"}
    assert TRAINING_ARGS_NAME not in names


def test_a_model_of_another_kind_is_saved_by_the_trainer(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, theirs = build("run"), []
    monkeypatch.setattr(Trainer, "_save", lambda self, *args: theirs.append(args))
    trainer.model = torch.nn.Linear(1, 1)
    trainer._save("there", {})
    assert theirs == [("there", {})]


def test_a_model_is_saved_where_the_arguments_say_and_without_a_tokenizer(build: Build) -> None:
    trainer = build("run")
    trainer.processing_class = None
    trainer._save()
    names = {path.name for path in trainer.run.folder.iterdir()}
    assert "model.safetensors" in names and "tokenizer.json" not in names and TRAINING_ARGS_NAME not in names


def test_other_processes_write_nothing(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build("run")
    trainer.create_optimizer_and_scheduler(2)
    args = SimpleNamespace(should_save=False, process_index=1, device=torch.device("cpu"), output_dir="nowhere")
    monkeypatch.setattr(trainer, "args", args)
    monkeypatch.setattr(trainer, "accelerator", SimpleNamespace(scaler=torch.optim.SGD([torch.ones(1)])))
    folder = tmp_path / "deep" / "checkpoint-1"
    trainer._save_rng_state(str(folder))
    trainer._save(str(folder))
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    assert not folder.exists()


def test_the_random_state_goes_on(build: Build, tmp_path: Path) -> None:
    trainer = build("run")
    trainer._save_rng_state(str(tmp_path))
    drawn = torch.rand(1)
    trainer._load_rng_state(str(tmp_path))
    assert torch.rand(1) == drawn


def test_nothing_is_loaded_without_a_checkpoint(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build("run")
    trainer.create_optimizer_and_scheduler(2)
    monkeypatch.setattr(trainer, "accelerator", SimpleNamespace(scaler=object()))
    trainer._load_optimizer_and_scheduler(None)
    trainer._load_scaler(None)
    trainer._load_rng_state(None)


def test_the_scale_of_half_precision_goes_on(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build("run")
    trainer._save_scaler(str(tmp_path))
    trainer._load_scaler(str(tmp_path))  # no scaler, and no file of one
    assert not (tmp_path / "scaler.json").exists()
    for scale in (1024.0, 2.0):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        monkeypatch.setattr(trainer, "accelerator", SimpleNamespace(scaler=scaler))
        if scale == 1024.0:
            trainer._save_scaler(str(tmp_path))
    trainer._load_scaler(str(tmp_path))
    assert trainer.accelerator.scaler.state_dict()["scale"] == 1024.0


def test_an_adapter_says_its_base_and_pickled_arguments_go(build: Build, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    trainer = build("run")
    trainer.model = get_peft_model(trainer.model, LoraConfig(r=2, fan_in_fan_out=True))
    written = tmp_path / "written"
    written.mkdir()
    (written / TRAINING_ARGS_NAME).write_bytes(b"a pickle")
    trainer._tr_loss, trainer._globalstep_last_logged, trainer.state.max_steps = torch.tensor(0.5), 0, 6
    trainer._complete(written, trainer.run.folder / "checkpoint-4")
    folder = trainer.run.folder / "checkpoint-4"
    assert {path.name for path in folder.iterdir()} == {BASE, COMPLETE}
    assert json.loads((folder / BASE).read_text()) == describe_base(trainer.model)


def test_the_lines_of_a_checkpoint_are_on_the_disk_before_it(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build("run")
    trainer._tr_loss, trainer._globalstep_last_logged = torch.tensor(0.5), 0
    (tmp_path / "written").mkdir()
    (trainer.run.folder / "metrics.jsonl").write_text("{}\n")
    order: list[str] = []
    monkeypatch.setattr(saving, "fsync_path", lambda path: order.append(path.name))
    monkeypatch.setattr(saving, "seal_checkpoint", lambda *args: order.append("sealed"))
    trainer._complete(tmp_path / "written", trainer.run.folder / "checkpoint-4")
    assert order == ["metrics.jsonl", "sealed"]


@pytest.mark.parametrize(
    ("step", "stops", "interrupted", "counted", "ended"),
    [
        (3, False, False, None, False),
        (6, False, False, None, True),
        (7, False, False, None, True),
        (3, True, False, None, True),  # the time is up
        (3, True, True, None, False),  # a signal
        (6, True, True, None, True),  # a signal in the last step
        (3, False, False, 1, False),
        (3, False, False, 2, True),
        (3, False, True, 3, True),
    ],
)
def test_whether_a_step_follows(
    step: int, stops: bool, interrupted: bool, counted: int | None, ended: bool, build: Build
) -> None:
    trainer = build("run")
    if counted is not None:
        trainer.add_callback(EarlyStoppingCallback(2))
        patience = trainer._patience()
        assert patience is not None
        patience.early_stopping_patience_counter = counted
    trainer.state.global_step, trainer.state.max_steps = step, 6
    trainer.control.should_training_stop, trainer.progress.interrupted = stops, interrupted
    assert trainer._ended() is ended


@pytest.mark.parametrize(("saved", "counted"), [({"attributes": {"early_stopping_patience_counter": 3}}, 3), (None, 0)])
def test_patience_without_a_count_that_was_saved(saved: Any, counted: int, build: Build) -> None:
    trainer = build("run")
    trainer.state.stateful_callbacks = {"EarlyStoppingCallback": saved} if saved else {}
    trainer._load_callback_state()  # nobody waits
    trainer.add_callback(EarlyStoppingCallback(5))
    trainer._load_callback_state()
    patience = trainer._patience()
    assert patience is not None and patience.early_stopping_patience_counter == counted


# ---- the rehearsal ---------------------------------------------------------------------------------------------------


class Rehearsing:
    """What `rehearse` needs of a trainer whose checkpoint has `n_bytes`."""

    def __init__(self, run: Run, n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainer = SavingTrainer.__new__(SavingTrainer)
        self.trainer.run, self.trainer.progress = run, Progress()
        self.trainer.args = SimpleNamespace(world_size=1, should_save=True)
        self.trainer.model = self.trainer.optimizer = None
        self.wrote = 0

        def write(trainer: Any, model: Any, trial: Any) -> None:
            aside = Path(trainer._get_output_dir(trial)) / "checkpoint-1"
            aside.mkdir(parents=True)
            (aside / "model.safetensors").write_bytes(b"x")
            self.wrote += 1

        monkeypatch.setattr(Trainer, "_save_checkpoint", write)
        monkeypatch.setattr(saving, "saved_bytes", lambda model, optimizer: n_bytes)


@pytest.mark.parametrize(
    ("n_bytes", "left_s", "is_rehearsed"),
    [
        (1, 599.0, False),
        (1, 600.0, True),
        (600_000_000, 600.0, True),  # 6 s, a hundredth of what is left
        (700_000_000, 600.0, False),
        (700_000_000, 701.0, True),
    ],
)
def test_which_training_is_rehearsed(
    n_bytes: int, left_s: float, is_rehearsed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    rehearsing = Rehearsing(Run(tmp_path), n_bytes, monkeypatch)
    with caplog.at_level(logging.INFO, "hone"):
        rehearsing.trainer.rehearse(left_s)
    assert rehearsing.wrote == is_rehearsed and not (tmp_path / SAVING).exists()
    assert (0 < rehearsing.trainer.progress.paused_s < 60) is is_rehearsed
    assert ("saving was rehearsed" in caplog.text) is is_rehearsed
    assert ("saving was not rehearsed: 700 MB may take more than 1% of the training" in caplog.text) is (
        n_bytes == 700_000_000 and not is_rehearsed
    )


def test_no_rehearsal_where_other_processes_would_have_to_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsing = Rehearsing(Run(tmp_path), 1, monkeypatch)
    rehearsing.trainer.args.world_size = 2
    rehearsing.trainer.rehearse(1e9)
    assert rehearsing.wrote == 0


def test_a_rehearsal_that_reads_other_bytes_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsing = Rehearsing(Run(tmp_path), 1, monkeypatch)

    def unlike(folder: Path, files: Any) -> None:
        assert folder == tmp_path / SAVING and list(files) == ["checkpoint-1/model.safetensors"]
        raise HoneError("other bytes")

    monkeypatch.setattr(saving, "refuse_unlike", unlike)
    with pytest.raises(HoneError, match="other bytes"):
        rehearsing.trainer.rehearse(1e9)
    assert not (tmp_path / SAVING).exists()


@pytest.mark.parametrize(("free", "is_said"), [(1999, True), (2000, False)])
def test_a_disk_without_room_for_two_is_named(
    free: int, is_said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rehearsing = Rehearsing(Run(tmp_path), 1000, monkeypatch)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    rehearsing.trainer.rehearse(1e9)
    assert ("each checkpoint takes" in caplog.text) is is_said


def test_the_rehearsal_is_after_the_first_step_and_for_all_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    times = iter([100.0, 103.0, 110.0, 120.0])
    monkeypatch.setattr(saving.time, "perf_counter", lambda: next(times))
    callback = Rehearsal(SimpleNamespace(rehearse=asked.append))  # type: ignore[arg-type]
    state = SimpleNamespace(max_steps=10, global_step=4)
    callback.on_step_end(None, state, None)  # type: ignore[arg-type]
    assert asked == [], "of a step whose beginning was not seen"
    callback.on_step_begin(None, state, None)  # type: ignore[arg-type]
    state.global_step = 5
    for _ in range(2):
        callback.on_step_end(None, state, None)  # type: ignore[arg-type]
    assert asked == [15.0], "five steps of three seconds, once"


def test_a_new_training_has_no_losses_to_go_on_from() -> None:
    trainer: Any = SimpleNamespace(resumed=None)
    Resumed(trainer).on_train_begin(None, None, None)  # type: ignore[arg-type]
