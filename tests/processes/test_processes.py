"""Several processes train what one does; a mistake is said once; a kill or a signal loses nothing.

Each start of a group costs seconds: few of them, which look at much.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from conftest import SIGNALS
from hone.commands.train import train as train_command
from hone.errors import HoneError
from hone.processes import joined, refuse_several
from hone.runs import Run

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "processes.py"
TOO_LONG_S = 240
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun's store is of other systems")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """What `benchmarks/processes.py` is made of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        from several import equal, world

        yield SimpleNamespace(**vars(world), differences=equal.differences)


@pytest.fixture(scope="module")
def place(bench: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows, read only by agreement; runs go beside them."""
    folder = tmp_path_factory.mktemp("processes")
    bench.write_world(folder)
    return folder


def command(config: dict[str, Any], *more: str) -> list[str]:
    given = [f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in config.items()]
    return [sys.executable, "-m", "hone", "train", *given, *more]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = process.communicate(timeout=TOO_LONG_S)
    return process.returncode, said


def start(config: dict[str, Any], *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(config, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def wait_until(reached: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + TOO_LONG_S
    while process.poll() is None and not reached():
        assert time.monotonic() < until
        time.sleep(0.01)


def group_of(bench: SimpleNamespace, place: Path, world: int, configs: list[dict[str, Any]]) -> None:
    """Train all of them in one group; its processes are forks of this one, which has imported everything already.

    The first of them holds the store, as where no agent of torchrun does. Other tests start theirs as a person would.
    """
    if sys.platform != "linux":
        bench.started(world, configs, place)
        return
    with socket.create_server(("127.0.0.1", 0)) as server:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    both = {**bench.environment(place, world), **meeting, "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    failed = place / "failed.txt"
    children = []
    for number in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {**both, "RANK": str(number), "LOCAL_RANK": str(number)}
                torch.set_num_threads(1)  # the pool of threads is not in a fork
                bench.train_here(configs)
                code = 0
            except BaseException:
                failed.write_text(traceback.format_exc())
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * world, failed.read_text() if failed.is_file() else codes


LONGER = {"num_train_epochs": 12}  # 36 steps: time enough to kill a process
ON_TWO = ["packed", "micro_batch_tokens", "classification"]
ON_THREE = ["code-tasks", "dropout", "lora", "freeze-cache", "seq2seq"]


@pytest.fixture(scope="module")
def on_two(bench: SimpleNamespace, place: Path) -> Path:
    """What a group of two has trained, undisturbed."""
    configs = [bench.settings(place, kind, f"{kind}-2", 2) for kind in ON_TWO]
    group_of(bench, place, 2, [*configs, bench.settings(place, "flat", "not-killed", 2, **LONGER)])
    return place


def as_one(bench: SimpleNamespace, place: Path, kinds: list[str], world: int) -> None:
    bench.train_here([bench.settings(place, kind, f"{kind}-1", 1) for kind in kinds])
    for kind in kinds:
        found = bench.differences(place / f"{kind}-1", place / f"{kind}-{world}")
        for key in ("steps", "epoch", "tokens", "supervised_tokens", "learning_rate"):
            assert found[key] < 1e-9, (kind, found)
        assert max(found["loss"], found["eval_loss"], found["tuned"]) < 2e-6 and found["weights"] < 1e-5, (kind, found)
        assert found["base"] == found["files"] == 0, f"{kind}: what is measured of the same weights is equal: {found}"


@pytest.mark.slow
def test_two_as_one(bench: SimpleNamespace, on_two: Path) -> None:
    """Losses of each step, weights; what is measured, to the last digit: items, texts, classes."""
    as_one(bench, on_two, ON_TWO, 2)


@pytest.mark.slow
def test_three_as_one(bench: SimpleNamespace, place: Path) -> None:
    """29 micro-batches in steps of 12 leave some processes without; code tasks; and a model in shards."""
    configs = [bench.settings(place, kind, f"{kind}-3", 3) for kind in [*ON_THREE, "fsdp2"]]
    group_of(bench, place, 3, configs)
    as_one(bench, place, [*ON_THREE, "fsdp2"], 3)


@pytest.mark.slow
@SIGNALS
def test_interrupted_on_two_and_on_three_and_ended_by_one(bench: SimpleNamespace, place: Path) -> None:
    """A signal to all, then to one of them alone; the steps stay as they were when the run began."""
    config = bench.settings(place, "dropout", "moved", 6, num_train_epochs=12, dropout=0.1)
    whole = bench.settings(place, "dropout", "unmoved", 6, num_train_epochs=12, dropout=0.1)
    whole["gradient_accumulation_steps"] *= 2
    bench.train_here([whole])
    run = Path(config["output_dir"])
    first = start(config, "nproc_per_node=2")
    wait_until(lambda: lines(run) >= 10, first)
    first.send_signal(signal.SIGTERM)
    code, said = ended(first)
    assert code == 130 and said.count("interrupted: stopped at step") == 1 and "Traceback" not in said, said
    assert "2 processes share each step: 4 micro-batches" in said
    second = start(config, "nproc_per_node=3")
    wait_until(lambda: lines(run) >= 40, second)
    psutil.Process(second.pid).children()[1].send_signal(signal.SIGTERM)
    code, said = ended(second)
    assert code == 130 and said.count("interrupted: stopped at step") == 1 and "Traceback" not in said, said
    assert "3 processes share each step: 4 micro-batches of 2, 8 examples, as when it began on 2" in said
    bench.train_here([config])
    found = bench.differences(run, Path(whole["output_dir"]))
    assert found["weights"] < 1e-5 and found["loss"] < 1e-5 and found["epoch"] < 1e-9 and found["steps"] == 0, found


@pytest.mark.slow
@SIGNALS
def test_a_process_that_is_killed_costs_nothing(bench: SimpleNamespace, on_two: Path) -> None:
    """While they measure the base together, and while they train."""
    config = bench.settings(on_two, "flat", "killed", 2, **LONGER, nproc_per_node=2)
    process = start(config, "max_restarts=2")
    run = Path(config["output_dir"])
    for reached in ((run / "env.json").is_file, lambda: lines(run) >= 14):
        wait_until(reached, process)
        psutil.Process(process.pid).children()[1].kill()
    code, said = ended(process)
    assert code == 0 and "resuming from checkpoint" in said and "Traceback" not in said, said
    assert (run / "model.safetensors").read_bytes() == (on_two / "not-killed" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_mistake_is_said_once(bench: SimpleNamespace, place: Path) -> None:
    """One that only the processes find: the launcher has read the config, not the rows. It is no reason to restart."""
    config = bench.settings(place, "flat", "wrong", 2, nproc_per_node=2, max_restarts=1)
    config["train_file"] = str(place / "not-there.jsonl")
    code, said = ended(start(config))
    assert code == 1 and said.count("error:") == 1 and "no such file" in said, said
    assert "Traceback" not in said and not Path(config["output_dir"]).exists()


def test_who_is_alone_is_told(monkeypatch: pytest.MonkeyPatch, bench: SimpleNamespace, tmp_path: Path) -> None:
    """accelerate prepares several processes on CPUs and starts one; a script with nproc_per_node is one."""
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(HoneError, match="a single process on CPUs"), joined():
        pass
    monkeypatch.delenv("MASTER_ADDR")
    with joined():
        assert Run(tmp_path).processes == 1
    import hone

    given = {
        "model_name_or_path": str(tmp_path / "x"),
        "train_file": "y",
        "output_dir": str(tmp_path / "run"),
        "nproc_per_node": 2,
    }
    with pytest.raises(HoneError, match="nproc_per_node asks for several processes, and this is one"):
        hone.train(given)
    with monkeypatch.context() as left, pytest.raises(HoneError, match="no such") as error:
        left.setenv("HONE_LAUNCHED", "1")  # the last one of several machines: it starts nothing, and trains
        left.setattr("hone.training.launch.launch", lambda *_: pytest.fail("started once more"))
        train_command([f"{key}={value}" for key, value in given.items()])
    assert "nproc_per_node" not in str(error.value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(HoneError, match="hone repeat runs in one process, and a launcher has started 2"):
        refuse_several("hone repeat")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nnodes": 2}, "nproc_per_node is not set"),
        ({"nnodes": 2, "nproc_per_node": 1}, "no place to meet"),
        ({"nnodes": "4:2", "nproc_per_node": 1}, "nnodes is '4:2'"),
        ({"nnodes": "two"}, "nnodes is 'two'"),
        ({"rdzv_backend": "static"}, "needs the number of this machine"),
    ],
)
def test_keys_that_contradict_each_other(given: dict[str, Any], message: str) -> None:
    import hone

    with pytest.raises(HoneError, match=message):
        hone.load_config(given)
