"""Bits per byte on held-out source files: a model, the same one untrained, a 5-gram model, and file compressors.

All of them pay for every byte of the same files. A model reads a file in windows of its context that begin half a
window apart and is scored on what is new in each; what nothing stands before costs log2(vocabulary) bits. Compressors
start each file anew at a high level, headers included; below the table, the best of them reads all files as one.
Intervals are over files.

    python benchmarks/base_model.py --model out/base/last --corpus out/base    # with held_out.jsonl and train.jsonl
"""

import argparse
import gzip
import json
import lzma
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import ngrams
import numpy as np

from hone import bundled
from hone.data.tokenizer import load_tokenizer, start_ids
from hone.show import estimate
from hone.statistics.intervals import ratio_interval

BATCH_TOKENS = 8192
COMPRESSORS: dict[str, Callable[[bytes], int]] = {
    "gzip -9": lambda content: len(gzip.compress(content, 9, mtime=0)),
    "xz -9e": lambda content: len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
}


def main() -> None:
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    texts = list(islice(read_texts(options.corpus / "held_out.jsonl"), options.files))
    n_bytes = np.array([len(text.encode()) for text in texts])
    print(f"{len(texts)} held-out files, {n_bytes.sum():,} bytes; 95% intervals over files\n")
    print("| | bits per byte | time |\n| --- | --- | ---: |")
    for name, measure in sides(options, texts):
        began = time.perf_counter()
        bits = measure()
        found = ratio_interval(np.asarray(bits, float), n_bytes, positive=True)
        print(f"| {name} | {estimate(found, '.3f')} | {time.perf_counter() - began:.0f} s |", flush=True)
    together = 8 * COMPRESSORS["xz -9e"]("".join(texts).encode()) / n_bytes.sum()
    print(f"\nxz -9e of all files in one: {together:.3f} bits per byte")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with held_out.jsonl and train.jsonl")
    parser.add_argument(
        "--model", type=bundled.resolve, help="a model folder, run or hone-base; without it, compressors alone"
    )
    parser.add_argument("--files", type=int, help="only the first N held-out files")
    parser.add_argument("--every", type=int, default=1, help="the 5-gram model reads every n-th training file")
    return parser.parse_args()


def sides(options: argparse.Namespace, texts: list[str]) -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """Name and measurement, texts -> bits of each, of everything that is compared."""
    for name, size in (COMPRESSORS | zstd()).items():
        yield name, lambda size=size: [8 * size(text.encode()) for text in texts]
    if options.model is None:
        return
    from transformers import AutoModelForCausalLM, set_seed

    tokenizer = load_tokenizer(options.model)
    ids = [np.array(row) for row in start_ids(tokenizer, texts, special=False)]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32").eval()
    yield f"{ngrams.ORDER}-gram, the same tokens", lambda: ngram_bits(options, tokenizer, ids)
    set_seed(0)
    untrained = AutoModelForCausalLM.from_config(model.config).eval()
    yield "the model, untrained", lambda: [model_bits(untrained, row) for row in ids]
    yield "the model, trained", lambda: [model_bits(model, row) for row in ids]


def read_texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as rows:
        for row in rows:
            yield json.loads(row)["text"]


def zstd() -> dict[str, Callable[[bytes], int]]:
    """zstd from the Python package or else the program. Level 19: above it, setting up takes seconds a file."""
    try:
        import zstandard
    except ImportError:
        if shutil.which("zstd") is None:
            print("zstd is left out: neither the package zstandard nor the program is here")
            return {}
        command = ["zstd", "-19", "--stdout", "--quiet"]
        return {"zstd -19": lambda content: len(subprocess.run(command, input=content, stdout=-1, check=True).stdout)}
    return {"zstd -19": lambda content: len(zstandard.ZstdCompressor(level=19).compress(content))}


def ngram_bits(options: argparse.Namespace, tokenizer: Any, ids: list[np.ndarray]) -> list[float]:
    texts = islice(read_texts(options.corpus / "train.jsonl"), 0, None, options.every)
    documents: list[np.ndarray] = []
    while batch := list(islice(texts, 256)):
        documents += [np.array(row, np.int32) for row in start_ids(tokenizer, batch, special=False)]
    model = ngrams.fit(documents, vocab_size=len(tokenizer))
    return [-float(ngrams.log_probs(model, row).sum()) / math.log(2) for row in ids]


def model_bits(model: Any, ids: np.ndarray) -> float:
    """Bits for one file's ids (T,), T at least 1."""
    import torch

    from hone.loss import token_nll
    from hone.models.inspect import max_positions

    context = max_positions(model) or 1024
    starts = range(0, max(len(ids) - context // 2, 1), context // 2)
    nats = math.log(model.config.vocab_size)  # of the first token
    rows = np.full((len(starts), context), 0)
    labels = np.full((len(starts), context), -100)
    for row, start in enumerate(starts):
        piece = ids[start : start + context]
        fresh = context // 2 if start else 1  # a first half has been scored as the window's before second half
        rows[row, : len(piece)] = piece
        labels[row, fresh : len(piece)] = piece[fresh:]
    size = max(BATCH_TOKENS // context, 1)
    with torch.inference_mode():
        for at in range(0, len(rows), size):
            inputs, wanted = torch.as_tensor(rows[at : at + size]), torch.as_tensor(labels[at : at + size])
            nats += float(token_nll(model(input_ids=inputs, use_cache=False).logits, wanted).sum(dtype=torch.float64))
    return nats / math.log(2)


if __name__ == "__main__":
    main()
