"""The benchmarks run anywhere and print numbers; the fast path writes the very bytes that the slow one would."""

import hashlib
import io
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.config import load_config
from hone.data import encode, store, views
from hone.data.prepare import prepare
from hone.data.words import word_ids

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["def f(x):\n", "    return", " it's", " 12", "  ", "\n\n", "\t", "é", " 二", "<|endoftext|>", "+=", " a", "Zz"]


@pytest.mark.slow
def test_prepare_data_prints_a_table(model_folder: Path) -> None:
    command = [sys.executable, "benchmarks/prepare_data.py", "--rows", "300", "--repeats", "1", "--times", "3"]
    done = subprocess.run(
        [*command, "--tokenizer", str(model_folder)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    tables = [line for line in done.stdout.splitlines() if line.startswith("|") and "---" not in line]
    assert len(tables) == 1 + 4 + 1 + 2, done.stdout
    for line in (*tables[1:5], *tables[6:]):
        numbers = [float(n.replace(",", "")) for n in re.findall(r"(?<=[| (])[\d,.]+(?= ?[|x)t ])", line)]
        assert len(numbers) >= 5 and np.isfinite(numbers).all(), line
    assert "Ids, labels and borders of all 3 are equal" in done.stdout
    assert "300 rows" in tables[6] and "900 rows" in tables[7]


def sample_rows() -> list[dict[str, str]]:
    """Three batches of rows, with copies, empty answers, characters beyond ASCII and special tokens spelled out."""
    choose = random.Random(0)

    def text(most: int) -> str:
        return "".join(choose.choices(WORDS, k=choose.randint(0, most)))

    rows = [{"instruction": text(9), "input": choose.choice(["", text(4)]), "output": text(20)} for _ in range(2100)]
    return rows + choose.choices(rows, k=100)


def reference_store(rows: list[dict[str, str]], tokenizer: Any, deduplicate: bool) -> dict[str, bytes]:
    """The files of a store, from one tokenizer call a text and Python lists; 10 % of the documents held out, seed 0."""
    documents: list[tuple[bytes, bytes]] = []
    for row in rows:
        if not row["output"].strip():
            continue
        given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
        prompt = f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n"
        ids: list[list[int]] = [
            tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            for text in (prompt, row["output"])
        ]
        tokens = [*ids[0], *ids[1], tokenizer.eos_token_id]
        mask = [0] * len(ids[0]) + [1] * (len(ids[1]) + 1)
        documents.append((b"".join(token.to_bytes(2, "little") for token in tokens), bytes(mask)))
    if deduplicate:
        documents = list(dict.fromkeys(documents))
    ranks = {document: rank(document, seed=0) for document in documents}
    held = set(sorted(ranks, key=ranks.__getitem__)[: round(len(ranks) / 10)])
    files: dict[str, bytes] = {}
    for name, kept in (
        ("train", [document for document in documents if document not in held]),
        ("val", [document for document in documents if document in held]),
    ):
        files[f"{name}.bin"] = b"".join(tokens for tokens, _ in kept)
        files[f"{name}.mask"] = b"".join(mask for _, mask in kept)
        index = io.BytesIO()
        np.save(index, np.cumsum([0] + [len(mask) for _, mask in kept], dtype=np.int64))
        files[f"{name}.docs.npy"] = index.getvalue()
    return files


def rank(document: tuple[bytes, bytes], seed: int) -> int:
    """splitmix64 of (digest + seed), in whole numbers."""
    digest = hashlib.blake2b(b"".join(document), digest_size=8).digest()
    mixed = (int.from_bytes(digest, "little") + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    return mixed ^ mixed >> 31


@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("by_words", [True, False])
def test_store_is_the_slow_encoders_byte_for_byte(
    tokenizer: Any, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, deduplicate: bool, by_words: bool
) -> None:
    assert word_ids(tokenizer, []) is not None
    if not by_words:
        monkeypatch.setattr(encode, "word_ids", lambda tokenizer, sample: None)
    rows = sample_rows()
    config = load_config({"train_file": str(write_rows("rows.jsonl", rows)), "deduplicate": deduplicate})
    folder = prepare(config, tokenizer).store.folder
    assert folder is not None
    files = reference_store(rows, tokenizer, deduplicate)
    assert {path.name for path in folder.iterdir()} == {*files, "meta.json"}
    for name, content in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256(content).digest(), name
    splits = json.loads((folder / "meta.json").read_text())["splits"]
    assert splits["train"]["supervised_tokens"] == sum(files["train.mask"])


def test_store_does_not_depend_on_how_it_is_cut_into_batches(
    tokenizer: Any, write_rows: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows("rows.jsonl", sample_rows()[:500])
    found = []
    for rows, tokens in ((1000, 1 << 20), (7, 50)):
        monkeypatch.setattr(encode, "ROWS_PER_BATCH", rows)
        for module, name in ((store, "WAITING_TOKENS"), (store, "COPY_TOKENS"), (views, "COUNTED_AT_ONCE")):
            monkeypatch.setattr(module, name, tokens)
        config = load_config({"train_file": str(path), "token_cache_dir": str(tmp_path / f"cache-{rows}")})
        prepared = prepare(config, tokenizer)
        assert prepared.store.folder is not None and not prepared.cached
        counts = prepared.train.n_supervised()
        assert counts.tolist() == [
            int((item["labels"] != -100).sum()) for item in map(prepared.train.__getitem__, range(len(counts)))
        ]
        found.append({path.name: path.read_bytes() for path in prepared.store.folder.iterdir()})
    assert found[0] == found[1]
