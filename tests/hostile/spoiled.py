"""A folder with a good configuration that each test spoils in one way, and the command line to run it with.

A plugin (`pytest_plugins = ["spoiled"]`), because a second conftest.py would hide the one above.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

GOOD = """\
model_name_or_path: ./model
train_file: train.jsonl
max_length: 64
max_steps: 2
logging_steps: 1
per_device_train_batch_size: 2
eval_strategy: no
save_strategy: no
sample_prompts: 1
sample_max_new_tokens: 2
bootstrap_resamples: 100
use_cpu: true
output_dir: out
"""
TEXTS = [json.dumps({"text": f"def f{i}(x):\n    return x + {i}\n"}) for i in range(20)]

Hone = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: cfg.yaml, train.jsonl with 20 short texts, model/ (256 positions, fewer than 512 ids)."""
    folder = tmp_path / "project"
    shutil.copytree(model_folder, folder / "model")
    (folder / "cfg.yaml").write_text(GOOD)
    (folder / "train.jsonl").write_text("\n".join(TEXTS) + "\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hone() -> Iterator[Hone]:
    """hone("train", "cfg.yaml", "seed=1") -> exit_code, stdout and stderr of the command, run in this process."""
    from hone.cli import app

    log = logging.getLogger("hone")
    before = list(log.handlers)

    def run(*arguments: str, stdin: bytes | str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    yield run
    log.handlers[:] = before  # not the captured stderr of a command that is over


@pytest.fixture
def refused(project: Path) -> Callable[..., str]:
    """refused(result, "cfg.yaml:9", "learning_rate") -> stderr, after all that holds for every mistake was asserted."""

    def check(result: Result, *words: str) -> str:
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        assert "Traceback" not in result.stderr
        assert [line[:7] for line in result.stderr.splitlines()].count("error: ") == 1, result.stderr
        message = result.stderr[result.stderr.index("error: ") :]
        for word in words:
            assert word in message, message
        assert len(message.splitlines()) >= 2, f"no repairing step: {message}"
        assert not leftovers(project.parent)
        return message

    return check


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders that should be gone."""
    return [path for path in folder.rglob("*") if ".tmp" in path.name]
