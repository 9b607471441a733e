"""`hone verify`: each changed byte of what hone wrote is named with its file."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import hone
from conftest import BASE_MODEL, pairs
from hone.bundled import folder as bundled
from hone.cli import app
from hone.errors import HoneError
from hone.files import read_sealed, write_sealed
from hone.manifest import describe_model
from hone.models.source import check_source
from hone.report.build import write_report
from hone.report.folder import read_folder
from hone.verify import verify

Damage = Callable[[Path], Any]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])  # the last byte of JSON is an empty line


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: list[Damage] = [flip, cut_off, zero, Path.unlink]


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A run with a checkpoint, to be copied."""
    folder = tmp_path_factory.mktemp("verify")
    for name, rows in (("train.jsonl", pairs(12)), ("val.jsonl", pairs(16)[12:])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"model_name_or_path": str(model_folder), "train_file": str(folder / "train.jsonl"), "max_steps": 2}
    settings |= {"validation_file": str(folder / "val.jsonl"), "sample_prompts": 1, "sample_max_new_tokens": 4}
    settings |= {"use_cpu": True, "bf16": False, "save_strategy": "steps", "save_steps": 2, "bootstrap_resamples": 100}
    settings |= {"token_cache_dir": str(folder / "tokens"), "output_dir": str(folder / "run")}
    hone.train(hone.load_config(settings))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def test_a_finished_run_is_as_it_was_written(run: Path) -> None:
    found = verify(str(run))
    assert found.problems == [] and found.kind == "run" and found.n_files > 15 and found.n_bytes > 100_000
    done = command(str(run))
    assert done.exit_code == 0 and "all as it was written" in done.stdout


FREE = {"README.md", "report.html", "report.md", "train.log", ".lock"}  # to be read or written by hand: nothing follows


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_each_file_of_a_run_is_looked_at(damage: Damage, run: Path, finished: Path) -> None:
    unnoticed = []
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name not in FREE):
        name = path.relative_to(run).as_posix()
        damage(path)
        if damage is Path.unlink and name in ("status.json", "checkpoint-2/complete.json"):
            pass  # a run that has not begun, a checkpoint that was not finished: what they are is said by nothing else
        elif not any(problem.startswith(f"{run / name}: ") for problem in verify(str(run)).problems):
            unnoticed.append(name)
        shutil.copyfile(finished / "run" / name, path)
    assert unnoticed == []


def test_the_command_names_the_file_and_ends_with_3(run: Path) -> None:
    flip(run / "model.safetensors")
    done = command(str(run))
    assert done.exit_code == 3
    assert f"{run / 'model.safetensors'}: the content is not what was written" in done.stdout
    as_json = command(str(run), "--json")
    assert as_json.exit_code == 3 and len(json.loads(as_json.stdout)["problems"]) == 1


def test_a_damaged_model_is_not_loaded(run: Path) -> None:
    flip(run / "model.safetensors")
    with pytest.raises(
        HoneError, match=r"model\.safetensors: the model is damaged: the content is not what was written"
    ):
        hone.generate(run, "add 1 and 2:", max_new_tokens=2)
    (run / "manifest.json").unlink()  # as the message advises who changed it on purpose
    check_source(str(run))


def test_the_card_may_be_edited(run: Path) -> None:
    (run / "README.md").write_text("mine")
    assert verify(str(run)).problems == []


@pytest.mark.parametrize("damage", ["deleted", "emptied"])
def test_a_card_that_is_gone_is_named(damage: str, run: Path) -> None:
    card = run / "README.md"
    card.unlink() if damage == "deleted" else card.write_text("")
    assert verify(str(run)).problems == [f"{card}: missing or empty"]
    write_report(run)
    assert "not as it was written: README.md: missing or empty" in (run / "report.md").read_text()


@pytest.mark.parametrize("name", ["checkpoint-2", "manifest.json"])
def test_parts_of_a_run(name: str, run: Path, tmp_path: Path) -> None:
    """A checkpoint alone, and a model folder as `hone export` writes one."""
    folder = run / name
    if not folder.is_dir():
        folder = tmp_path / "model"
        folder.mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(run / file, folder / file)
        describe_model(folder)
    assert verify(str(folder)).problems == []
    flip(folder / "model.safetensors")
    assert [Path(p.split(":")[0]).name for p in verify(str(folder)).problems] == ["model.safetensors"]


def test_the_folders_of_the_cache(finished: Path, tmp_path: Path) -> None:
    tokens = Path(shutil.copytree(finished / "tokens", tmp_path / "tokens"))
    assert verify(str(tokens)).problems == []
    flip(next(tokens.glob("*/train.bin")))
    assert "train.bin: the content is not what was written" in verify(str(tokens)).problems[0]


def test_the_bundled_model_is_as_it_was_shipped(tmp_path: Path) -> None:
    assert verify("hone-base").problems == []
    assert set(read_sealed(bundled() / "manifest.json")["files"]) >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }
    assert (BASE_MODEL / "base_ship.py").is_file()


def test_a_model_of_the_hub_is_known_by_the_names_of_its_files(tmp_path: Path) -> None:
    """Links to files called by their SHA-256, small ones by git's SHA-1."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    weights, config = b"weights" * 99, b'{"model_type": "gpt2"}'
    small = hashlib.sha1(b"blob %d\0" % len(config) + config).hexdigest()
    for name, content, digest in (
        ("model.safetensors", weights, hashlib.sha256(weights).hexdigest()),
        ("config.json", config, small),
    ):
        (blobs / digest).write_bytes(content)
        (snapshot / name).symlink_to(blobs / digest)
    assert verify(str(snapshot)).problems == []
    flip(snapshot / "model.safetensors")
    (blobs / small).unlink()
    assert [Path(p.split(":")[0]).name for p in verify(str(snapshot)).problems] == ["config.json", "model.safetensors"]


def test_what_nothing_is_known_of_is_said(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="nothing here says"):
        verify(str(tmp_path))
    with pytest.raises(HoneError, match="no such folder"):
        verify(str(tmp_path / "nothere"))


def test_a_seal_does_not_fit_another_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, {"loss": 1.25, "n": 3})
    assert read_sealed(path) == {"loss": 1.25, "n": 3}
    path.write_text(path.read_text().replace("1.25", "1.26"))
    with pytest.raises(HoneError, match="not what was written"):
        read_sealed(path)


def test_a_report_says_which_measurements_have_changed(run: Path) -> None:
    (run / "eval" / "base.json").unlink()
    shutil.copyfile(run / "eval" / "tuned.items.json", run / "eval" / "base.items.json")
    for name in ("status.json", "template.json"):
        (run / name).unlink()
    notes = " ".join(read_folder(run).notes)
    for name in ("eval/base.json", "status.json", "template.json"):
        assert f"not as it was written: {name}: missing" in notes
    assert "not as it was written: eval/base.items.json: " in notes


def test_a_config_that_is_gone_is_named(run: Path) -> None:
    (run / "config.json").unlink()
    with pytest.raises(HoneError, match=r"config\.json: missing"):
        hone.generate(run, "add 1 and 2:", max_new_tokens=2)
