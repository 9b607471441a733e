"""The command as a newcomer meets it: fast help, documented commands that work, clean errors for odd uses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone.cli import app
from hone.config.explain import recipe_names
from hone.results import Measurement
from hone.runs import Run

COMMANDS = [
    "demo",
    "init",
    "doctor",
    "check",
    "explain",
    "prepare",
    "train",
    "eval",
    "generate",
    "chat",
    "runs",
    "convert",
]


def invoke(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, list(arguments), **options)


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom hone.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    times = []
    for _ in range(3):
        began = os.times()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        times.append(os.times().children_user - began.children_user)
        assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)
    assert min(times) < 0.5, times  # CPU seconds; 0.15 on a quiet machine


def test_commands_that_load_no_model_do_not_import_torch(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", pairs(3))
    commands = [["check", f"model_name_or_path={model_folder}", f"train_file={rows}"], ["explain", "lora_r"], ["init"]]
    commands += [["runs", str(tmp_path)], ["report", str(tmp_path)], ["cache"]]
    commands += [["compare", str(tmp_path)], ["grade", str(tmp_path)]]  # these come to statistics
    program = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom hone.cli import app\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, command)\n"
        "    assert done.exit_code == (1 if command[0] in ('compare', 'report', 'grade') else 0), done.output\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules)\n"
        "    assert not heavy or heavy == {'scipy'} and command[0] in ('compare', 'grade'), (command, heavy)\n"
    )
    command = [sys.executable, "-c", program, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_usage_errors_are_2() -> None:
    assert invoke("no-such-command").exit_code == 2
    assert invoke("generate").exit_code == 2


def test_train_eval_generate_runs(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", pairs(30))
    out = tmp_path / "run"
    keys = [f"model_name_or_path={model_folder}", f"train_file={rows}", f"output_dir={out}", "max_length=64"]
    result = invoke("train", *keys, "--learning_rate", "1e-3", "--num-train-epochs=1", "sample_max_new_tokens=5")
    assert result.exit_code == 0, result.output
    assert "perplexity" in result.stdout
    assert str(out) in result.stdout
    tuned = Run(out).tuned
    assert tuned

    result = invoke("eval", str(out), "--json")
    assert result.exit_code == 0, result.output
    assert Measurement.model_validate_json(result.stdout).value("loss") == pytest.approx(tuned.value("loss"), rel=1e-6)

    result = invoke("generate", str(out), "--prompt", "add 3 and 8:", "--max-new-tokens", "6", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["answers"]) == 1
    sampled = [
        invoke("generate", str(out), "-p", "add", "--temperature", "1", "-n", "2", "--seed", seed, "--json").stdout
        for seed in ("1", "1", "2")
    ]
    assert sampled[0] == sampled[1]
    assert sampled[0] != sampled[2]
    piped = invoke("generate", str(out), "--max-new-tokens", "4", input="add 1 and 2:")
    assert piped.exit_code == 0

    listed = json.loads(invoke("runs", str(tmp_path), "--json").stdout)
    assert [row["status"] for row in listed] == ["finished"]
    assert (listed[0]["metric"], listed[0]["after"]) == ("loss", pytest.approx(tuned.value("loss")))
    assert "finished" in invoke("runs", str(tmp_path)).stdout


def test_prepare_shows_rows_and_saves_bins(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", [*pairs(10), {"prompt": "nothing", "completion": ""}])
    keys = [f"model_name_or_path={model_folder}", f"train_file={rows}"]
    result = invoke("prepare", *keys, "--show", "2", "--save-bin", str(tmp_path / "bins"))
    assert result.exit_code == 0, result.output
    assert result.stdout.count("--- example") == 2
    assert "⟦" in result.stdout, "supervised tokens are marked also without colour"
    assert "<|endoftext|>⟧" in result.stdout, "the end token is shown, and supervised"
    assert "dropped 1 × empty output: nothing to learn: " in result.stdout
    assert "rows.jsonl:11\n" in result.stdout
    assert (tmp_path / "bins" / "train.bin").stat().st_size > 0
    assert "from the token cache" in invoke("prepare", *keys).stdout
    bins = invoke(
        "prepare", f"model_name_or_path={model_folder}", f"train_file={tmp_path / 'bins' / 'train.bin'}", "--show", "1"
    )
    assert bins.exit_code == 0, bins.output


def test_check_prints_the_resolved_config(model_folder: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", pairs(3))
    result = invoke("check", f"model_name_or_path={model_folder}", f"train_file={rows}", "lr=3e-4")
    assert result.exit_code == 0, result.output
    assert "learning_rate: 0.0003" in result.stdout
    assert "note: " in result.stderr


def test_init_writes_a_recipe_that_checks_and_never_overwrites(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    listed = invoke("init")
    assert "light-lab" in listed.stdout
    assert invoke("init", "light-lab").exit_code == 0
    text = Path("light-lab.yaml").read_text()
    again = invoke("init", "light-lab")
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert Path("light-lab.yaml").read_text() == text


@pytest.mark.parametrize("recipe", recipe_names())
def test_init_brings_rows_that_the_recipe_reads(recipe: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Every key that names a file names one that was written, and every row is read as the task wants it."""
    monkeypatch.chdir(tmp_path)
    result = invoke("init", recipe, "--with-data")
    assert result.exit_code == 0, result.output
    assert "wrote " in result.stdout and f"wrote {recipe}.yaml" in result.stdout
    name = "tokenizer_name_or_path" if recipe == "code-from-scratch" else "model_name_or_path"
    config = hone.load_config(f"{recipe}.yaml", [f"{name}=hone-base"])
    assert config.data.dataset_name is None
    data = hone.prepare(config)
    assert len(data.train) >= 8 and len(data.validation) >= 2
    assert not data.store.meta["dropped"]


def test_init_with_rows_leaves_every_file_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eval.jsonl").write_text("mine")
    result = invoke("init", "classify", "--with-data")
    assert result.exit_code == 1 and "eval.jsonl" in result.stderr and "exists already" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["eval.jsonl"]


def test_doctor_answers() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 0, result.output
    names = {check["name"] for check in json.loads(result.stdout)}
    assert {"cpu", "bf16", "memory", "gpu", "sandbox"} <= names


def test_broken_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m hone explain | head -n 1", shell=True, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr
