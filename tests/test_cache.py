"""`hone cache`: everything that is kept is listed with its size, and goes when told; nothing else does."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from hone.cache import KINDS, cache_entries, cache_root
from hone.cli import app
from hone.grading.ask import Kept


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trained(root: Path, tmp_path: Path, model_folder: Path, write_rows: Callable[..., Path]) -> dict[str, Any]:
    """A run with frozen blocks: tokens and a prefix are kept. Returns its keys."""
    model_folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    about = json.loads((model_folder / "config.json").read_text())
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    (model_folder / "config.json").write_text(json.dumps({**about, **still}))
    keys = {
        "model_name_or_path": str(model_folder),
        "train_file": str(write_rows("rows.jsonl", [{"text": f"def f{i}(): return {i} * {i}"} for i in range(20)])),
        "output_dir": str(tmp_path / "run"),
        "method": "freeze",
        "num_unfrozen_layers": 1,
        "num_train_epochs": 2,
        "sample_prompts": 0,
        "max_length": 64,
        "use_cpu": True,
    }
    hone.train(hone.load_config(keys))
    return keys


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["cache", *arguments])


def test_what_a_run_leaves_is_listed_and_goes(root: Path, trained: dict[str, Any]) -> None:
    (root / "answers").mkdir()
    (root / "answers" / "abc.jsonl").write_text("{}\n")
    (root / "kernels").mkdir()
    (root / "kernels" / "linear-abc.so").write_text("compiled")
    (root / "tokens" / "mine").mkdir()
    (root / "tokens" / "mine" / "notes.txt").write_text("not hone's")
    assert cache_root() == root
    kinds = [entry.kind for entry in cache_entries(root)]
    assert sorted(kinds) == ["answers", "kernels", "prefix", "tokens"]
    listed = invoke()
    assert listed.exit_code == 0 and "rows.jsonl" in listed.output and str(root) in listed.output
    assert "freed" not in listed.output
    rows = json.loads(invoke("--json").output)
    assert {row["kind"]: row["bytes"] > 0 for row in rows} == dict.fromkeys(KINDS, True)
    gone = invoke("--remove", "prefix,answers,kernels", "--json")
    assert json.loads(gone.output)["freed"] == sum(row["bytes"] for row in rows if row["kind"] != "tokens")
    assert [entry.kind for entry in cache_entries(root)] == ["tokens"]
    assert not list((root / "tokens" / "prefix").iterdir())
    assert invoke("--remove", "all").exit_code == 0
    assert (root / "tokens" / "mine" / "notes.txt").is_file(), "what hone has not written stays"
    assert "nothing is kept" in invoke().output
    hone.train(hone.load_config({**trained, "output_dir": f"{trained['output_dir']}2"}))  # made again


def test_only_what_is_old_goes(root: Path, trained: dict[str, Any]) -> None:
    assert "0 removed" in invoke("--remove", "tokens", "--older-than", "3").output
    [tokens] = [entry for entry in cache_entries(root) if entry.kind == "tokens"]
    for file in tokens.path.iterdir():
        os.utime(file, (1, 1))
    assert "1 removed" in invoke("--remove", "tokens", "--older-than", "3").output


def test_links_lead_out_of_the_cache_and_are_left_alone(root: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "meta.json").write_text("{}")
    (root / "tokens" / "link").symlink_to(tmp_path / "precious")
    (root / "answers" / "mine.jsonl").mkdir(parents=True)
    assert invoke("--remove", "all").exit_code == 0
    assert (tmp_path / "precious" / "meta.json").is_file() and (root / "answers" / "mine.jsonl").is_dir()


def test_a_kind_that_there_is_not(root: Path) -> None:
    result = invoke("--remove", "weights")
    assert result.exit_code == 1 and "tokens, prefix, answers, kernels or all" in result.output


def test_an_answer_that_changed_on_the_disk_is_asked_for_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "answers" / "key.jsonl")
    for number in range(3):
        kept.add(f"prompt {number}", [f"return {number}"])
    assert Kept(kept.path).answers == kept.answers
    kept.path.write_text(kept.path.read_text().replace("return 1", "return 7"))
    assert list(Kept(kept.path).answers) == ["prompt 0", "prompt 2"]


def add_many(path: Path, number: int) -> None:
    kept = Kept(path)
    for i in range(50):
        kept.add(f"{number} {i}", ["x" * 5000 * number])


@pytest.mark.skipif(os.name != "posix", reason="forks processes")
def test_two_runs_at_once_keep_all_their_answers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_many, args=(tmp_path / "key.jsonl", number)) for number in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(Kept(tmp_path / "key.jsonl").answers) == 150
