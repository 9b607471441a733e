"""The rows every set-up trains on: chosen, tokenised and ordered once, before any of them starts.

The template is written out here once more, so that a fault in hone's own would show as different losses.
"""

import json
import random
from pathlib import Path
from typing import Any

IGNORE_INDEX = -100


def choose_rows(files: list[Path], tokenizer: Any, count: int, max_length: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows drawn from the files, each with its `ids` and the number of ids of its `prompt_tokens`.

    Left out: rows without an answer, repeated rows, and rows of which max_length leaves no answer.
    """
    from hone.data.sources import read_rows

    found = [dict(row.columns) for row in read_rows(files, on_bad_row="error", on_skip=print)]
    random.Random(seed).shuffle(found)
    chosen: dict[tuple[int, ...], dict[str, Any]] = {}
    for row in found:
        if len(chosen) == count:
            break
        if not row["output"].strip():
            continue
        given = f"### Input:\n{row['input']}\n\n" if row.get("input") else ""
        prompt = f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n"
        prompt_ids, answer_ids = (
            tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            for text in (prompt, row["output"])
        )
        ids = [*prompt_ids, *answer_ids, tokenizer.eos_token_id][:max_length]
        if len(prompt_ids) < len(ids):
            kept = {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"]}
            chosen.setdefault(tuple(ids), {**kept, "ids": ids, "prompt_tokens": len(prompt_ids)})
    if len(chosen) < count:
        raise SystemExit(f"speed.py: {count} different rows are needed, the data has {len(chosen)}")
    return list(chosen.values())


def write_rows(rows: list[dict[str, Any]], folder: Path, batch: int, epochs: int, seed: int) -> list[int]:
    """rows.jsonl as hone reads it; ordered.json, the examples of all epochs in the order hone's sampler takes them.

    Returns the real tokens of each step.
    """
    from hone.data.batches import EpochBatches

    text = ("instruction", "input", "output")
    (folder / "rows.jsonl").write_text("".join(json.dumps({k: row[k] for k in text}) + "\n" for row in rows))
    sampler, order = EpochBatches(len(rows), batch, seed), []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        order += list(sampler)
    ordered = [(rows[i]["ids"], rows[i]["prompt_tokens"]) for indices in order for i in indices]
    (folder / "ordered.json").write_text(json.dumps(ordered))
    return [sum(len(rows[i]["ids"]) for i in indices) for indices in order]


def write_held_out(rows: list[dict[str, Any]], folder: Path) -> None:
    """held-out.json, the examples that nobody trains on."""
    (folder / "held-out.json").write_text(json.dumps([(row["ids"], row["prompt_tokens"]) for row in rows]))


def read_held_out(folder: str) -> list[dict[str, list[int]]]:
    """As `read_ordered`; empty where none are held out."""
    return _examples(Path(folder, "held-out.json"))


def read_ordered(folder: str) -> list[dict[str, list[int]]]:
    """input_ids and labels of every example, in the order of training; labels only on the answer and its end token."""
    return _examples(Path(folder, "ordered.json"))


def _examples(file: Path) -> list[dict[str, list[int]]]:
    return [
        {"input_ids": ids, "labels": [IGNORE_INDEX] * n_prompt + ids[n_prompt:]}
        for ids, n_prompt in json.loads(file.read_text())
    ]
