"""Perplexity over documents against transformers' own loss, document by document, in float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hone
from hone.data.tokenizer import token_byte_lengths
from hone.data.truncate import view
from hone.metrics.losses import item_losses, measurement_of

TEXTS = ["def add(a, b):\n    return a + b\n", "naïve café ☕ — 你好", "x", "for i in range(10):\n    print(i)\n" * 9]


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2", "opt"])
def test_losses_equal_those_of_the_documents_one_by_one(
    architecture: str, tmp_path: Path, model_folder: Path, tiny_model: Any, tokenizer: Any, write_rows: Any
) -> None:
    path = write_rows("rows.jsonl", [{"text": text} for text in TEXTS])
    config = hone.load_config(
        {"model_name_or_path": str(model_folder), "train_file": str(path), "validation_split_percentage": 0.0}
    )
    dataset = view(hone.prepare(config).store.train, 64, "split")
    model = tiny_model(architecture)
    lengths = token_byte_lengths(tokenizer, len(tokenizer))
    for tokens_per_batch in (1, 100, 10_000):
        losses = item_losses(model, dataset, lengths, tokens_per_batch=tokens_per_batch)
        for i, text in enumerate(TEXTS):
            ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            nll = n = 0.0
            for at in range(0, len(ids), 64):
                piece = torch.tensor([ids[at : at + 64]])
                if piece.shape[1] > 1:
                    with torch.no_grad():
                        nll += float(model(piece, labels=piece).loss.double()) * (piece.shape[1] - 1)
                    n += piece.shape[1] - 1
            assert losses.n_tokens[i] == n
            assert math.isclose(losses.nll[i], nll, rel_tol=2e-6), (architecture, tokens_per_batch, i)


def test_bits_per_byte_by_hand(tiny_model: Any, tokenizer: Any, model_folder: Path, write_rows: Any) -> None:
    """Bytes are those of the supervised tokens: all of the text but its first token's."""
    text = "café au lait"
    path = write_rows("rows.jsonl", [{"text": text}])
    config = hone.load_config(
        {"model_name_or_path": str(model_folder), "train_file": str(path), "validation_split_percentage": 0.0}
    )
    dataset = view(hone.prepare(config).store.train, 64, "split")
    losses = item_losses(
        tiny_model("gpt2"), dataset, token_byte_lengths(tokenizer, len(tokenizer)), tokens_per_batch=64
    )
    first = tokenizer.decode([tokenizer(text)["input_ids"][0]])
    assert losses.n_bytes.tolist() == [len(text.encode()) - len(first.encode())]
    result = measurement_of("causal", losses, confidence=0.95, resamples=100)
    assert result.value("bits_per_byte") == pytest.approx(float(losses.nll[0]) / math.log(2) / losses.n_bytes[0])
    assert result.value("perplexity") == pytest.approx(math.exp(losses.nll[0] / losses.n_tokens[0]))
    assert result.metrics["loss"].bounds is None, "one item has no interval"
    assert np.isfinite(result.value("loss"))


def test_dropout_is_off_and_the_mode_restored(
    tiny_model: Any, tokenizer: Any, model_folder: Path, write_rows: Any
) -> None:
    path = write_rows("rows.jsonl", [{"text": text} for text in TEXTS])
    config = hone.load_config(
        {"model_name_or_path": str(model_folder), "train_file": str(path), "validation_split_percentage": 0.0}
    )
    dataset = view(hone.prepare(config).store.train, 64, "split")
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    lengths = token_byte_lengths(tokenizer, len(tokenizer))
    one, other = (item_losses(model, dataset, lengths, tokens_per_batch=64).nll for _ in range(2))
    assert (one == other).all()
    assert model.training
