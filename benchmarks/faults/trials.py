"""What the fault scripts share: tiny work, a child process for each trial, and what must be equal in the end.

torch and hone are imported once; each trial is a fork of this process, which has no threads. A trial is the command
line itself (`hone train cfg.yaml`), with its messages and exit codes. CPU, float32, one thread.
"""

import argparse
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}

T = TypeVar("T")
Moment = tuple[str, str, int]  # a module or class, its function, and which call of it

TRACEBACK = 70  # exit code of a trial that ends with an exception the command line does not catch
TIMES = ("tokens_per_s", "step_s", "mfu", "peak_memory_bytes")
LEFT = (".tmp", ".saving", ".damaged")  # in the names of what nobody may leave
QUICK = {
    "max_length": 64,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 1,  # six steps
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
    "eval_strategy": "no",
    "eval_base": False,
    "sample_prompts": 0,
    "bootstrap_resamples": 100,
    "overlap": "off",
    "bf16": False,
    "use_cpu": True,
    "learning_rate": 1e-3,
}
# fmt: off
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"method": "lora", "lora_r": 2},
    "frozen with cache": {
        "method": "freeze", "num_unfrozen_layers": 1, "unfreeze_embeddings": False, "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
    },
    "classification": {"task": "classification"},
    "repeat": {},
}
# fmt: on
WORDS = {"good": ["fine", "great", "lovely"], "bad": ["poor", "awful", "sad"]}


@dataclass(frozen=True)
class Ended:
    """How a trial ended. code: exit code, or minus the signal's number. said: standard output and errors."""

    code: int
    said: str
    seconds: float


# ---- the work --------------------------------------------------------------------------------------------------------


def make_inputs(folder: Path) -> None:
    """A tiny GPT-2 with its tokenizer in model/, and rows to train on; then everything a trial imports is imported."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from hone.data.tokenizer import train_bpe
    from hone.training import setup

    torch.set_num_threads(1)
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # half of a tiny run is the drawing of its curves
    setup.matmul_gflops = lambda *args: 0.0  # and a third the measurement of the processor
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [{"prompt": f"add {i} and {i * 7 % 13}:", "completion": f" {i + i * 7 % 13}" + "!" * (i % 9)}
             for i in range(40)]  # fmt: skip
    labelled = [
        {"text": f"{WORDS[label][i % 3]} day {i}", "label": label} for i in range(20) for label in sorted(WORDS)
    ]
    for name, rows in {"train": pairs[:24], "val": pairs[24:30], "labels": labelled}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = train_bpe([json.dumps(row) for row in (*pairs, *labelled)], vocab_size=300)
    torch.manual_seed(0)
    plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    about = GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=128, vocab_size=len(tokenizer), **plain)
    GPT2LMHeadModel(about).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def settings(kind: str, inputs: Path, place: Path, **more: Any) -> dict[str, Any]:
    """The config of one kind of run that lives in `place`: run/ and tokens/ there."""
    rows: dict[str, Any] = {"train_file": str(inputs / "train.jsonl"), "validation_file": str(inputs / "val.jsonl")}
    if kind == "classification":
        rows = {"train_file": str(inputs / "labels.jsonl"), "validation_split_percentage": 25}
    places = {"output_dir": str(place / "run"), "token_cache_dir": str(place / "tokens")}
    return {"model_name_or_path": str(inputs / "model"), **rows, **QUICK, **KINDS[kind], **places, **more}


def command(kind: str, inputs: Path, place: Path, **more: Any) -> list[str]:
    """The line that trains it; its config is written to `place`."""
    place.mkdir(parents=True, exist_ok=True)
    config = place / "cfg.yaml"
    config.write_text(json.dumps(settings(kind, inputs, place, **more), indent=1))
    return ["repeat", str(config), "--seeds", "2"] if kind == "repeat" else ["train", str(config)]


# ---- a trial ---------------------------------------------------------------------------------------------------------


class Trial:
    """A child process that runs the command line; `before` is called in it first."""

    def __init__(self, args: list[str], place: Path, before: Callable[[], None] = lambda: None) -> None:
        self.log, self.began = place / "said.txt", time.monotonic()
        self.log.write_text("")  # a child that is killed at once has said nothing
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(args, self.log, before)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; to one that has ended, nothing happens."""
        os.kill(self.pid, number)  # it is our child and not yet waited for: the number is still its own

    def wait(self, limit_s: float = 120) -> Ended:
        """Its end; one that does not come is forced, and told."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.began > limit_s:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"no end after {limit_s} s: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, self.log.read_text(errors="replace"), time.monotonic() - self.began)


def run(args: list[str], place: Path, before: Callable[[], None] = lambda: None) -> Ended:
    """The command line in a child, to its end."""
    return Trial(args, place, before).wait()


def _run(args: list[str], log: Path, before: Callable[[], None]) -> None:
    """In the child; never returns."""
    code = TRACEBACK
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["hone", *args]
        before()
        from hone.cli import app

        app(args)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def at(moment: Moment, do: Callable[[], None]) -> Callable[[], None]:
    """What a child does first (`before`), so that `do` is called in it as soon as this moment comes."""
    owner_name, name, nth = moment

    def before() -> None:
        module, _, kind = owner_name.rpartition(".")
        in_class = kind[0].isupper()
        owner: Any = getattr(importlib.import_module(module), kind) if in_class else importlib.import_module(owner_name)
        function, count = getattr(owner, name), 0

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                do()
            return function(*args, **kwargs)

        setattr(owner, name, call)

    return before


def import_what_trials_need(args: list[str], place: Path) -> Ended:
    """Run one trial, and import here what it has imported: the next ones begin at once. Returns how it ended."""
    names = place / "imported.json"

    def remember() -> None:
        exit_ = os._exit

        def leave(code: int) -> None:
            names.write_text(json.dumps(sorted(sys.modules)))
            exit_(code)

        os._exit = leave  # type: ignore[assignment]

    ended = run(args, place, remember)
    for name in json.loads(names.read_text()):
        if name.split(".")[0] not in ("__main__", "trials"):
            try:
                __import__(name)
            except Exception:  # a library's lazy module that this one has no use for
                continue
    gc.collect()
    gc.freeze()
    return ended


# ---- what must be equal, and what must not be left -------------------------------------------------------------------


def result(place: Path) -> dict[str, Any]:
    """All that a run gives, times left out: weights, optimizer of the end, metrics and measurements, by file.

    A signal saves a checkpoint that an undisturbed run has not; only the last ones are to be equal.
    """
    found: dict[str, Any] = {}
    earlier = {one for folder in _runs(place / "run") for one in trained_to(folder)[:-1]}
    for path in sorted((place / "run").rglob("*")):
        name = path.relative_to(place / "run").as_posix()
        if not path.is_file() or path.parent in earlier or path.parent.name.endswith(".damaged"):
            continue
        if path.suffix == ".safetensors" or path.name in ("optimizer.json", "scheduler.json"):
            found[name] = path.read_bytes()
        elif path.name == "metrics.jsonl":
            found[name] = _lines(path)
        elif path.parent.name == "eval" or path.name == "repeat.json":
            found[name] = timeless(path)
    return found


def _lines(path: Path) -> Any:
    """The lines of metrics.jsonl without clocks; of a damaged file, its bytes."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    except (ValueError, AttributeError):
        return path.read_bytes()


def _runs(folder: Path) -> list[Path]:
    """A run's folder, or those of `hone repeat` in it."""
    return [folder, *folder.glob("seed-*")]


def trained_to(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def timeless(path: Path) -> Any:
    """A result file without its clocks; a damaged one as it is."""

    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: drop(v) for k, v in value.items() if "second" not in k and k != "seal"}
        return [drop(v) for v in value] if isinstance(value, list) else value

    try:
        if path.suffix == ".jsonl":
            return [drop(json.loads(line)) for line in path.read_text().splitlines()]
        return drop(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
    except ValueError:
        return path.read_bytes()


def differences(whole: dict[str, Any], place: Path) -> list[str]:
    """The files that are not as the undisturbed run wrote them."""
    found = result(place)
    return sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name))


def leftovers(place: Path) -> list[str]:
    """Temporaries, half checkpoints and the like in the run and in its caches."""
    names = [path.relative_to(place).as_posix() for path in place.rglob("*")]
    half = [path for path in (place / "run").rglob("checkpoint-*") if not (path / "complete.json").is_file()]
    return [name for name in names if any(part in name for part in LEFT)] + [path.name for path in half]


def last_line(said: str) -> str:
    """The error in what a command said, else its last line."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "interrupted"))]
    return (errors or lines or [""])[-1]


# ---- the scripts' arguments, and tables ------------------------------------------------------------------------------


def arguments(about: str | None, *, shares: str | None = None) -> argparse.ArgumentParser:
    """A script's parser, with what all have: where to work, and to do a share only.

    Args:
        about: the script's docstring. shares: what it can be divided into; None where it cannot.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where to work; a temporary folder without it")
    if shares:
        parser.add_argument("--share", default="1/1", help=f"i/n: each n-th {shares}, from the i-th on")
    return parser


def share_of(everything: Sequence[T], share: str) -> Sequence[T]:
    """
    >>> share_of("abcdefg", "2/3")
    'be'
    """
    first, step = map(int, share.split("/"))
    return everything[first - 1 :: step]


def table(head: list[str], rows: Iterable[Iterable[object]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def fresh(folder: Path) -> Path:
    """An empty folder of this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def random_of(seed: int, *parts: object) -> random.Random:
    """A generator that depends on these words alone."""
    return random.Random(f"{seed}/" + "/".join(map(str, parts)))


def places(name: str, work: Path | None) -> Path:
    """Where a script works: the folder that was asked for, or a temporary one; emptied."""
    return fresh((work or Path(tempfile.gettempdir()) / "hone-faults") / name)
