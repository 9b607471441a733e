"""Windows equal, id for id, those of the tokenizer's own `return_overflowing_tokens` with the length filter."""

import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import hone

MODULES = ["textwrap.py", "bisect.py", "string.py", "shlex.py", "calendar.py", "this.py", "keyword.py"]


@pytest.mark.parametrize("length", [16, 128])
def test_windows_equal_the_tokenizers_overflowing_tokens(
    tmp_path: Path, model_folder: Path, tokenizer: Any, length: int
) -> None:
    texts = [(Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8") for name in MODULES]
    rows = tmp_path / "code.jsonl"
    rows.write_text("".join(json.dumps({"content": text}) + "\n" for text in texts), encoding="utf-8")
    config = hone.load_config(
        {
            "model_name_or_path": str(model_folder),
            "train_file": str(rows),
            "column_mapping": {"text": "content"},
            "batching": "windows",
            "max_length": length,
            "append_eos": False,
            "validation_split_percentage": 0.0,
        }
    )
    data = hone.prepare(config)
    ours = [data.train[i]["input_ids"].tolist() for i in range(len(data.train))]

    encoded = tokenizer(texts, truncation=True, max_length=length, return_overflowing_tokens=True, return_length=True)
    theirs = [ids for ids, n in zip(encoded["input_ids"], encoded["length"], strict=True) if n == length]
    remainder = sum(n for n in encoded["length"] if n != length)
    assert len(theirs) > 50
    assert ours == theirs
    assert data.train.left_out == {f"tokens in remainders shorter than {length}": remainder}


def test_every_window_supervises_all_but_its_first_token(tmp_path: Path, model_folder: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 40, encoding="utf-8")
    config = hone.load_config(
        {"model_name_or_path": str(model_folder), "train_file": str(path), "batching": "windows", "max_length": 32}
    )
    data = hone.prepare(config)
    item = data.train[1]
    assert len(item["input_ids"]) == 32
    assert item["labels"][0] == -100
    assert (item["labels"][1:] == item["input_ids"][1:]).all()
    # one document: its end is held out by position, and nothing is in both
    assert (
        data.store.train.starts[-1] + data.store.val.starts[-1]
        == data.store.meta["splits"]["train"]["tokens"] + (data.store.meta["splits"]["val"]["tokens"])
    )
