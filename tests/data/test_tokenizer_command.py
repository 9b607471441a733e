"""`hone tokenizer`: the tokenizer that the library would make, loaded by anybody, and measured beside others."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from hone.cli import app
from hone.data.texts import texts
from hone.errors import HoneError
from hone.metrics.bytes_per_token import bytes_per_token

HOSTILE = [
    "",
    " ",
    "\x00\x01",
    "\ud7ff",
    "é🙂 naïve\r\n\t",
    "<|endoftext|> as text",
    "a" * 5000,
    "\u202e\ufeff",
    "def f(x):\n\treturn x",
]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["tokenizer", *arguments])


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    for i in range(30):
        (folder / f"f{i}.py").write_text(f"def add_{i}(a, b):\n    return a + b + {i}\n" * 3, encoding="utf-8")
    return folder


@pytest.fixture
def made(code: Path, tmp_path: Path) -> Path:
    done = invoke("train", str(code), "--vocab-size", "300", "-o", str(tmp_path / "mine"))
    assert done.exit_code == 0, done.output
    assert "300 entries" in done.stdout
    return tmp_path / "mine"


def test_it_is_the_library_s_own(code: Path, made: Path) -> None:
    """Merges and ids of ByteLevelBPETokenizer, a class of the tokenizers library that shares no line with ours."""
    from tokenizers import ByteLevelBPETokenizer

    theirs = ByteLevelBPETokenizer()
    theirs.train_from_iterator(
        texts([code]), vocab_size=300, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False
    )
    mine = json.loads((made / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert mine["merges"] == json.loads(theirs.to_str())["model"]["merges"]
    assert mine["vocab"] == theirs.get_vocab()


def test_any_text_comes_back_from_what_anybody_loads(made: Path) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(made)
    assert loaded.eos_token == "<|endoftext|>" and loaded.eos_token_id == 0 and len(loaded) == 300
    for text in HOSTILE:
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        assert loaded.decode(ids) == text


def test_measured_beside_others(made: Path, tmp_path: Path, write_rows: Any) -> None:
    held_out = [f"def sub_{i}(a, b):\n    return a - b  # é🙂\n" for i in range(600)]  # more than one batch
    rows = write_rows("rows.jsonl", [{"text": text, "other": "x" * 99} for text in held_out])
    done = invoke("measure", str(made), str(rows), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told) == [str(made), "hone-base"]
    from transformers import AutoTokenizer

    for name, path in ((str(made), made), ("hone-base", Path(hone.__file__).parent / "assets" / "base")):
        plain = AutoTokenizer.from_pretrained(path)
        n_tokens = sum(len(plain(text, add_special_tokens=False)["input_ids"]) for text in held_out)
        n_bytes = sum(len(text.encode()) for text in held_out)
        assert (told[name]["n_tokens"], told[name]["n_bytes"]) == (n_tokens, n_bytes)
        assert told[name]["ratio"]["value"] == pytest.approx(n_bytes / n_tokens)
    shown = invoke("measure", str(made), str(rows), "--against", str(made)).stdout
    assert "bytes per token" in shown and "1.00" in shown and "hone-base" not in shown


def test_texts_of_rows(tmp_path: Path, write_rows: Any) -> None:
    pairs = write_rows("pairs.jsonl", [{"prompt": "a", "completion": "b", "n": 3, "tests": ["c"]}])
    assert list(texts([pairs])) == ["a", "b", "c"] and list(texts([pairs], "completion")) == ["b"]
    with pytest.raises(HoneError, match="no text in column 'n'"):
        list(texts([pairs], "n"))
    with pytest.raises(HoneError, match="no text to measure"):
        bytes_per_token(None, iter([""]))  # type: ignore[arg-type]


def test_mistakes_are_one_message(made: Path, code: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["train", str(code)], "no folder to write"),
        (["train", str(code), "-o", str(made)], "exists already"),
        (["train", str(tmp_path / "none"), "-o", str(tmp_path / "b")], "no such file"),
        (["measure", str(made)], "no file to measure on"),
        (["measure", str(tmp_path), str(code)], "no tokenizer in this folder"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 1 and words in done.stderr, done.output
    assert not (tmp_path / "b").exists()


def test_a_model_from_scratch_is_trained_with_it(made: Path, code: Path, tmp_path: Path) -> None:
    settings = {
        "model_type": "gpt2",
        "tokenizer_name_or_path": str(made),
        "config_overrides": {"n_positions": 32, "n_layer": 1, "n_head": 2, "n_embd": 16},
        "train_file": str(code),
        "output_dir": str(tmp_path / "run"),
        "batching": "windows",
        "max_length": 32,
        "max_steps": 2,
        "sample_prompts": 0,
    }
    run = hone.train(hone.load_config(settings))
    about = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert about["vocab_size"] == 300 and about["eos_token_id"] == 0
