"""The benchmarks run anywhere and print numbers; the fast path writes the very bytes that the slow one would."""

import argparse
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

from conftest import load_script
from hone.config import load_config
from hone.data import encode, store_writer
from hone.data import truncate as views
from hone.data.prepare import prepare
from hone.data.pretoken_cache import word_ids
from hone.grading.tasks import as_task
from hone.tasks import task_of

pytest_plugins = ["serving", "talking"]
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


@pytest.mark.slow
def test_speed_trains_the_same_rows_and_prints_tables(model_folder: Path, write_rows: Callable[..., Path]) -> None:
    rows = [{"instruction": f"add {i}", "input": "to it" * (i % 2), "output": f"{i}! " * (i + 1)} for i in range(9)]
    path = write_rows("rows.jsonl", [*rows, {**rows[0]}, {"instruction": "nothing", "input": "", "output": " "}])
    told = path.with_name("told.json")
    command = ["benchmarks/speed.py", "tiny", "--data", str(path), "--tokenizer", str(model_folder), "--only"]
    options = ["trainer,expert,hone", "--rounds", "1", "--steps", "3", "--patience", "0", "--json", str(told)]
    done = subprocess.run([sys.executable, *command, *options], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    setups = json.loads(told.read_text())["setups"]
    losses = np.array([[*setup["warm_up_losses"], *setup["turns"][0]["losses"]] for setup in setups.values()])
    assert losses.shape == (3, 4) and np.ptp(losses, axis=0).max() < 1e-3, losses
    assert (losses[:, 0] > losses[:, -1]).all(), "trained"
    for name, setup in setups.items():
        turn = setup["turns"][0]
        assert turn["tokens"] == setups["hone"]["turns"][0]["tokens"] > 100  # hone's own count is compared on the way
        assert turn["seconds"] > 0 and 0 < setup["baseline"] < setup["peak"] and turn["rates"][0]["bfloat16"] > 0
        assert turn["first_step_s"] > setup["set_up_s"][0] > 0
        assert f"| {name} | " in done.stdout


def test_speed_counts_the_operations_that_a_method_needs(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from speed.flops import training_flops
    from speed.peers import apply_method

    from hone.models.inspect import flops_per_token

    model = tiny_model("gpt2")
    block = sum(p.numel() for p in model.transformer.h[0].parameters() if p.dim() == 2)
    head = model.lm_head.weight.numel()
    assert training_flops(model) == flops_per_token(model) == 6 * (2 * block + head)
    apply_method(model, {"method": "freeze", "num_unfrozen_layers": 1})
    assert training_flops(model) == 2 * block + 6 * block + 4 * head
    lora = {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_modules": ["q_proj", "v_proj"]}
    adapted = apply_method(tiny_model("llama"), {"method": "lora", **lora})
    first = adapted.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.base_layer").weight
    assert training_flops(adapted) == flops_per_token(adapted) - 2 * first.numel()  # nothing below it needs a gradient


def test_speed_sees_a_flat_row_whose_examples_see_each_other(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import torch
    from speed.peers import assert_isolated
    from transformers import DataCollatorWithFlattening

    examples = [{"input_ids": list(range(n, 3 * n)), "labels": list(range(n, 3 * n))} for n in (9, 20, 30)]
    model, flatten = tiny_model("gpt2"), DataCollatorWithFlattening()
    with pytest.raises(AssertionError, match="see each other"):
        assert_isolated(model, flatten, examples)  # its cache, on by default, turns the mask between examples off
    model.config.use_cache = False
    assert_isolated(model, flatten, examples)

    def leaking(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        batch = flatten(rows)
        return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}  # so does any mask

    with pytest.raises(AssertionError, match="see each other"):
        assert_isolated(model, leaking, examples)


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
    config = load_config(
        {"train_file": str(write_rows("rows.jsonl", rows)), "deduplicate": deduplicate, "overlap": "off"}
    )
    folder = prepare(config, task_of(config), tokenizer).store.folder
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
        for module, name in (
            (store_writer, "WAITING_TOKENS"),
            (store_writer, "COPY_TOKENS"),
            (views, "COUNTED_AT_ONCE"),
        ):
            monkeypatch.setattr(module, name, tokens)
        keys = {"train_file": str(path), "token_cache_dir": str(tmp_path / f"cache-{rows}"), "overlap": "off"}
        config = load_config(keys)
        prepared = prepare(config, task_of(config), tokenizer)
        assert prepared.store.folder is not None and not prepared.cached
        counts = prepared.train.n_supervised()
        assert counts.tolist() == [
            int((item["labels"] != -100).sum()) for item in map(prepared.train.__getitem__, range(len(counts)))
        ]
        found.append({path.name: path.read_bytes() for path in prepared.store.folder.iterdir()})
    assert found[0] == found[1]


def test_the_demo_s_functions_as_heads_are_beginnings_of_their_references() -> None:
    command = [sys.executable, "benchmarks/demo_heads.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    heads = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({head["task_id"] for head in heads}) == len(heads) > 100
    for head in heads:
        signature, words = head["prompt"].splitlines()
        assert head["reference"].startswith(f"{signature}\n") and re.fullmatch(r' {4}"""[A-Z].*"""', words)
        task = as_task(head)
        assert task.prompt_is_code and "Write" not in words


@pytest.mark.slow
def test_serving_finds_nothing_lost_and_nothing_mixed_up(make_run: Callable[..., Path]) -> None:
    command = [
        sys.executable,
        "benchmarks/serving.py",
        str(make_run("instruction")),
        "--requests",
        "20",
        "--clients",
        "4",
    ]
    options = ["--new", "4", "--minutes", "0.01", "--bad", "3"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 0 / 0 / 0 |" in done.stdout and done.stdout.endswith("nothing lost, nothing mixed up\n")


def test_the_page_on_scale_has_the_numbers_of_its_script(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    script = load_script(ROOT / "benchmarks" / "scale.py")
    monkeypatch.setattr(sys, "argv", ["scale.py"])
    script.main()
    printed = dict(re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines())
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]*\|$", page, re.M)
    assert {name: value for name, value in rows if name in printed} == printed


def test_scale_by_hand() -> None:
    script = load_script(ROOT / "benchmarks" / "scale.py")
    options = argparse.Namespace(
        text_tb=1, gpus=10, parameters=1e9, utilisation=0.5, corpus_mb_s=10, link_gb_s=10, disk_gb_s=2, look_s=0.1
    )
    found = dict(script.lines(options))
    assert found["tokens"] == "0.25 T"
    assert found["training, all GPUs"] == f"{6e9 * 0.25e12 / (10 * 989e12 * 0.5) / 86400:.1f} days"
    assert found["a checkpoint"] == "12 GB" and found["written by one process at 2 GB/s"] == "6 s"
    assert found["gradients sent and received by each GPU a step, DDP"] == "7 GB"
