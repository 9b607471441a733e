"""Output folders that cannot be used, disks that are full, and odd but plausible uses of every command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]


# ---- the output folder --------------------------------------------------------------------------------------------


def test_an_output_folder_that_cannot_be(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "file").write_text("mine")
    refused(hone("train", "cfg.yaml", "output_dir=file"), "file: is a file, not a folder", "output_dir")
    refused(hone("train", "cfg.yaml", "output_dir=file/out"), "cannot write: Not a directory", "output_dir")
    assert (project / "file").read_text() == "mine"
    if sys.platform == "linux":
        refused(hone("train", "cfg.yaml", "output_dir=/proc/out"), "/proc/out: cannot write", "output_dir")


def test_a_folder_with_a_strangers_files_is_left_as_it_was(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "out").mkdir()
    (project / "out/thesis.txt").write_text("mine")
    for settings in ([], ["overwrite=true"]):
        refused(hone("train", "cfg.yaml", *settings), "holds no run", "thesis.txt", "output_dir")
        assert [path.name for path in (project / "out").iterdir()] == ["thesis.txt"]


def test_another_run_is_refused_and_survives_a_mistake_in_its_successor(
    project: Path, hone: Hone, refused: Refused
) -> None:
    assert hone("train", "cfg.yaml").exit_code == 0
    weights = (project / "out/model.safetensors").read_bytes()
    refused(hone("train", "cfg.yaml", "seed=7"), "another run", "seed: 42 there, 7 here", "overwrite=true")
    for mistake in ("train_file=nothere.jsonl", "max_length=300"):
        refused(hone("train", "cfg.yaml", "overwrite=true", mistake))
        assert (project / "out/model.safetensors").read_bytes() == weights


def test_a_run_without_its_config_is_named_by_the_missing_file(project: Path, hone: Hone, refused: Refused) -> None:
    assert hone("train", "cfg.yaml").exit_code == 0
    (project / "out/config.resolved.yaml").unlink()
    for command in (("train", "cfg.yaml"), ("compare", "out")):
        refused(hone(*command), "out/config.resolved.yaml: missing", "put it back")


def test_a_corrected_configuration_is_not_taken_for_another_run(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("train", "cfg.yaml", "max_length=300"))
    result = hone("train", "cfg.yaml", "max_length=32")
    assert result.exit_code == 0, result.stderr


IN_A_NAMESPACE = """
import logging, subprocess, sys
from typer.testing import CliRunner
from hone.cli import app

def run(name, options, *arguments):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "disk"], check=True)
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, SystemExit), result.exception
    left = subprocess.run(["find", "disk"], capture_output=True, text=True).stdout
    subprocess.run(["umount", "-l", "disk"], check=True)
    print("CASE", name, result.exit_code, "\\n" + result.stderr + left)

always = ["train", "cfg.yaml", "output_dir=disk/out", "save_strategy=steps", "save_steps=1"]
run("full-at-the-start", "size=8k", *always)
run("full-at-a-checkpoint", "size=100k", *always)
run("full-at-the-model", "size=100k", *always, "save_strategy=no")
run("full-token-cache", "size=8k", *always, "output_dir=out", "token_cache_dir=disk")
run("read-only", "ro", *always)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mount namespaces")
def test_a_full_disk_and_a_read_only_one(project: Path) -> None:
    (project / "disk").mkdir()
    unshare = shutil.which("unshare")
    probe = f"mount -t tmpfs tmpfs {project / 'disk'}"
    if unshare is None or subprocess.run([unshare, "-rm", "sh", "-c", probe], capture_output=True).returncode:
        pytest.skip("this machine does not allow an unprivileged mount (unshare -rm)")
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [unshare, "-rm", sys.executable, "-c", IN_A_NAMESPACE],
        capture_output=True,
        text=True,
        env={**os.environ, **paths},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    cases = {case.split()[0]: case for case in done.stdout.split("CASE ")[1:]}
    assert len(cases) == 5
    for name, case in cases.items():
        assert case.startswith(f"{name} 1"), case
        assert case.count("\nerror: ") == 1, case
        assert "Traceback" not in case and "Logging error" not in case, case
        assert ".tmp" not in case, case
        assert "choose another place" in case, case
        assert ("the disk is full" in case and "free some space" in case) == name.startswith("full"), case
    for name in ("full-at-the-start", "read-only"):
        assert "disk/out" not in cases[name].splitlines(), cases[name]
    assert "checkpoint-1: cannot write" in cases["full-at-a-checkpoint"]
    assert "disk/out/checkpoint-1" not in cases["full-at-a-checkpoint"].splitlines()  # it would only fill the disk
    assert "token_cache_dir" in cases["full-token-cache"]


# ---- the other commands -------------------------------------------------------------------------------------------


def test_odd_prompts_and_folders_of_generate(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("generate", "./nothere", "-p", "x"), "./nothere: no such folder")
    refused(hone("generate", "a/b/c", "-p", "x"), "a/b/c: no such folder")
    refused(hone("generate", "cfg.yaml", "-p", "x"), "a model is named by its folder")
    (project / "empty").mkdir()
    refused(hone("generate", "empty", "-p", "x"), "not a model folder", "config.json")
    (project / "empty/status.json").write_text("{}")
    refused(hone("generate", "empty", "-p", "x"), "this run has no model yet", "checkpoint-N")
    refused(hone("generate", "model", "-p", "x", "--template", "poem"), "unknown template 'poem'", "plain")
    refused(hone("generate", "model", "-p", "word " * 400), "window 256", "shorten")
    refused(hone("generate", "model", stdin=b"caf\xe9"), "stdin: the prompt is not UTF-8")
    refused(hone("generate", "model", "-p", "caf\udce9"), "--prompt: the prompt is not UTF-8")
    empty = hone("generate", "model", "-p", "", "--max-new-tokens", "2")
    assert empty.exit_code == 0, empty.output
    assert hone("generate", "model", "-p", "x", "--seed", "9" * 30).exit_code == 2


def test_runs_lists_what_is_there_and_names_what_is_damaged(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("runs", "nothere"), "nothere: no such folder")
    assert hone("runs", "model").stdout == "no runs here\n"
    for name, status in (("a", '{"status": "finished"}'), ("b", "{"), ("c", "[1]")):
        (project / "out" / name).mkdir(parents=True)
        (project / "out" / name / "status.json").write_text(status)
    (project / "out/a/metrics.jsonl").write_text('{"loss": 1.5}\n{"loss"')
    result = hone("runs", "out")
    assert result.exit_code == 0, result.output
    found = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if line.startswith("out/")}
    assert [found[f"out/{name}"] for name in "abc"] == ["finished", "damaged", "damaged"]
    assert "out/b/status.json: not readable as JSON" in result.stdout
    rows = json.loads(hone("runs", "out", "--json").stdout)
    assert [row["last_loss"] for row in rows] == [1.5, None, None]


def test_init_explain_eval_and_options(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("init", "nonsense"), "no recipe 'nonsense'", "light-lab")
    refused(hone("init", "light-lab", "-o", "cfg.yaml"), "cfg.yaml: exists already", "--output")
    refused(hone("init", "light-lab", "-o", "no/where.yaml"), "no: no such folder", "--output")
    refused(hone("explain", "lerning_rate"), "unknown key or concept 'lerning_rate'", "learning_rate")
    refused(hone("eval", "model"), "no data to measure on", "eval.jsonl")
    refused(hone("check", "cfg.yaml", "--nonsense"), "unknown option --nonsense", "hone explain")
    refused(hone("check", "cfg.yaml", "model_name_or_path=./nothere"), "nothere: no such folder")
    refused(hone("prepare", "cfg.yaml", "--save-bin", "cfg.yaml"), "cfg.yaml: cannot write", "--save-bin")
    assert (project / "cfg.yaml").read_text().startswith("model_name_or_path")


def test_every_command_has_help(hone: Hone) -> None:
    from hone.cli import app

    names = [str(c.name or getattr(c.callback, "__name__", "")) for c in app.registered_commands]
    assert {"train", "plan", "export", "predict"} <= set(names)
    for command in names:
        result = hone(command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("report", "PATH"),
        ("eval", "PATH"),
        ("check", "PATH"),
        ("compare", "PATH"),
        ("grade", "PATH", "x.jsonl"),
        ("generate", "PATH", "-p", "x"),
        ("train", "cfg.yaml", "learning_rate=1e-3", "output_dir=PATH"),
        ("train", "cfg.yaml", "learning_rate=1e-3", "train_file=PATH"),
        ("train", "cfg.yaml", "model_name_or_path=./PATH"),
    ],
)
def test_a_path_longer_than_any_file_systems(command: tuple[str, ...], project: Path, hone: Hone) -> None:
    result = hone(*(part.replace("PATH", "a" * 5000) for part in command))
    assert result.exit_code == 1 and result.stderr.startswith("error: "), result.stderr
    assert "Traceback" not in result.output
