"""SIGTERM and SIGHUP where no step is under way: one message, status.json says so, and the same call goes on.

During training: `test_runs.py`. Every signal at every stage, in processes: `benchmarks/faults/signals.py`.
"""

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hone
from conftest import SIGNALS, pairs
from hone.errors import Interrupted
from hone.runs import Run
from hone.training.callbacks import interrupted_by_signals

STAGES = {  # module, function, which call of it -> what is said, and what status.json says then
    "base measured": ("hone.evaluation.held_out", "evaluate_model", 1, "before anything was measured", None),
    "model saved": ("hone.training.checkpoint", "save_tokenizer", 1, "while training", "interrupted"),
    "tuned measured": ("hone.evaluation.held_out", "evaluate_model", 2, "not measured", "interrupted"),
    "card": ("hone.training.train", "model_card", 1, "not measured", "interrupted"),
    "report": ("hone.training.train", "write_report_or_say", 1, "only its report is missing", "finished"),
}


@pytest.fixture
def config(tmp_path: Path, model_folder: Path, write_rows: Any) -> Any:
    rows, held = write_rows("train.jsonl", pairs(8)), write_rows("val.jsonl", pairs(2))
    places = {"train_file": str(rows), "validation_file": str(held), "output_dir": str(tmp_path / "out")}
    quick = {"use_cpu": True, "save_strategy": "no", "max_length": 64, "sample_prompts": 0, "num_train_epochs": 1.0}
    return hone.load_config({"model_name_or_path": str(model_folder), **places, **quick})


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Under nohup they are not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def at_call(number: int, function: Callable[..., Any], do: Callable[[], None]) -> Callable[..., Any]:
    """The function; before its call of this number something is done."""
    count = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            do()
        return function(*args, **kwargs)

    return call


@SIGNALS
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_outside_of_the_steps(stage: str, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, number, words, status = STAGES[stage]
    sent = signal.SIGHUP if stage == "card" else signal.SIGTERM
    owner = importlib.import_module(module)
    with monkeypatch.context() as patched:
        kill = at_call(number, getattr(owner, name), lambda: os.kill(os.getpid(), sent))
        patched.setattr(owner, name, kill)
        with pytest.raises(Interrupted, match=f"{words}.*: the same command goes on"):
            hone.train(config)
    run = Run(config.output.output_dir)
    assert run.folder.is_dir() == (status is not None), "a run that has not begun leaves no folder"
    assert run.status.get("status", "unknown") == (status or "unknown")
    assert signal.getsignal(sent) is signal.SIG_DFL, "put back"
    hone.train(config)
    assert run.status["status"] == "finished" and run.tuned is not None
    assert (run.folder / "report.html").is_file()
    assert not list(run.folder.rglob(".*.tmp*"))


@SIGNALS
def test_who_listens_himself_or_ignores_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        with interrupted_by_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@SIGNALS
def test_a_forked_child_ends_as_if_nobody_listened() -> None:
    with interrupted_by_signals():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
