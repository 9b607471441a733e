"""Overlapping windows: which tokens each scores, that each counts once, and that a text that fits is a single pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hone
from conftest import pairs
from hone.data.tokenizer import token_byte_lengths
from hone.data.truncate import view
from hone.errors import HoneError
from hone.metrics.losses import item_losses
from hone.metrics.strided import StridedDataset, strided, windows

LONG = "for i in range(10):\n    print(i, 'squared is', i * i)\n" * 6
SHORT = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("n", "window", "stride", "expected"),
    [
        # 10 tokens, windows of 4: 1 2 3 | 4 5 after 2 3 | 6 7 after 4 5 | 8 9 after 6 7
        (10, 4, 2, [(0, 4, [1, 2, 3]), (2, 6, [4, 5]), (4, 8, [6, 7]), (6, 10, [8, 9])]),
        # one token of context is the least: 1 2 3 | 4 5 6 after 3 | 7 8 after 5 6, the last window being a whole one
        (9, 4, 3, [(0, 4, [1, 2, 3]), (3, 7, [4, 5, 6]), (5, 9, [7, 8])]),
        (6, 4, 1, [(0, 4, [1, 2, 3]), (1, 5, [4]), (2, 6, [5])]),
        (4, 4, 2, [(0, 4, [1, 2, 3])]),
        (3, 4, 2, [(0, 3, [1, 2])]),
        (1, 4, 2, [(0, 1, [])]),
    ],
)
def test_by_hand(n: int, window: int, stride: int, expected: list[Any]) -> None:
    found = zip(*(column.tolist() for column in windows(n, window=window, stride=stride)))
    assert [(start, end, list(range(first, end))) for start, end, first in found] == expected


@settings(max_examples=300, deadline=None)
@given(n=st.integers(1, 400), window=st.integers(2, 90), data=st.data())
def test_each_token_is_scored_once_with_as_much_context_as_there_is(n: int, window: int, data: Any) -> None:
    stride = data.draw(st.integers(1, window - 1))
    starts, ends, firsts = windows(n, window=window, stride=stride)
    scored = [t for first, end in zip(firsts, ends) for t in range(first, end)]
    assert scored == list(range(1, n)), "n - 1 tokens, each once"
    for start, end, first in zip(starts, ends, firsts):
        assert start >= 0 and end <= n and end - start <= window
        assert end - start == min(window, n), "no window is shorter than it could be"
        assert first == 1 or first - start >= window - stride, "context"


@pytest.mark.parametrize("stride", [0, 4, 9])
def test_a_stride_without_overlap_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 3"):
        windows(10, window=4, stride=stride)


def losses(model: Any, dataset: Any, tokenizer: Any) -> Any:
    lengths = token_byte_lengths(tokenizer, len(tokenizer))
    return item_losses(model, dataset, lengths, tokens_per_batch=512)


def split_of(rows: list[dict[str, Any]], model_folder: Path, write_rows: Any) -> Any:
    path = write_rows("rows.jsonl", rows)
    keys = {"model_name_or_path": str(model_folder), "train_file": str(path), "validation_split_percentage": 0.0}
    return hone.prepare(hone.load_config(keys)).store.train


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_a_text_that_fits_is_a_single_pass(
    architecture: str, tiny_model: Any, tokenizer: Any, model_folder: Path, write_rows: Any
) -> None:
    split = split_of([{"text": LONG}, {"text": SHORT}, {"text": "x"}], model_folder, write_rows)
    whole, model = view(split, 256, "split"), tiny_model(architecture)
    assert whole.lengths.max() < 256
    plain = losses(model, whole, tokenizer)
    for stride in (1, 128, 255):
        got = losses(model, strided(whole, window=256, stride=stride), tokenizer)
        assert (got.n_tokens == plain.n_tokens).all() and (got.n_bytes == plain.n_bytes).all()
        np.testing.assert_allclose(got.nll, plain.nll, rtol=1e-5)


def test_each_token_has_the_loss_that_its_context_gives(
    tiny_model: Any, tokenizer: Any, model_folder: Path, write_rows: Any
) -> None:
    """One forward pass for each token over exactly the tokens before it that its window holds."""
    split = split_of([{"text": LONG}, {"text": SHORT}], model_folder, write_rows)
    model, window, stride = tiny_model("gpt2"), 24, 7
    got = losses(model, strided(view(split, window, "split"), window=window, stride=stride), tokenizer)
    for i in range(2):
        ids = torch.as_tensor(split.tokens[split.starts[i] : split.starts[i + 1]].astype(np.int64))
        expected = 0.0
        for start, end, first in zip(*windows(len(ids), window=window, stride=stride)):
            for t in range(first, end):
                with torch.no_grad():
                    scores = model(ids[None, start:t]).logits[0, -1].double().log_softmax(-1)
                expected -= float(scores[ids[t]])
        assert got.n_tokens[i] == len(ids) - 1
        assert got.nll[i] == pytest.approx(expected, rel=1e-5)


def test_prompts_are_context_and_never_scored(
    tiny_model: Any, tokenizer: Any, model_folder: Path, write_rows: Any
) -> None:
    """Also where the prompt fills more than a window: its middle is left out, the answer has what stands before it."""
    rows = [{"prompt": LONG, "completion": " 81\n" * 12}, *pairs(2)]
    split = split_of(rows, model_folder, write_rows)
    found = strided(view(split, 32, "split"), window=32, stride=16)
    n_answer = [int(split.supervised[a:b].sum()) for a, b in zip(split.starts, split.starts[1:])]
    assert losses(tiny_model("gpt2"), found, tokenizer).n_tokens.tolist() == n_answer
    first = found[0]
    n_prompt = int(np.flatnonzero(split.supervised[: split.starts[1]])[0])
    assert len(first["input_ids"]) == 32
    assert found.pieces.starts[0] + np.flatnonzero(first["labels"] >= 0)[0] == n_prompt
    assert len(found) < sum(len(windows(int(n), window=32, stride=16)[0]) for n in np.diff(split.starts))


def test_an_only_document_has_its_windows_as_items(
    tiny_model: Any, tokenizer: Any, model_folder: Path, write_rows: Any
) -> None:
    split = split_of([{"text": LONG}], model_folder, write_rows)
    found = strided(view(split, 32, "split"), window=32, stride=8)
    got = losses(tiny_model("gpt2"), found, tokenizer)
    assert (got.item, len(got.nll)) == ("piece", len(found))
    assert got.n_tokens.sum() == len(split.tokens) - 1


def test_fewer_examples_reach_less_far(model_folder: Path, write_rows: Any) -> None:
    """max_eval_samples keeps its meaning: the first pieces of a document, and no further."""
    dataset = view(split_of([{"text": LONG}], model_folder, write_rows), 32, "split").head(2)
    found: StridedDataset = strided(dataset, window=32, stride=8)
    assert (found.pieces.starts + found.lengths).max() == 64


def test_the_key_measures_long_documents_whole(model_folder: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", [{"text": f"{i}: {LONG}"} for i in range(6)])
    train = write_rows("train.jsonl", [{"text": SHORT}])
    base: dict[str, Any] = {
        "model_name_or_path": str(model_folder), "train_file": str(train), "validation_file": str(rows),
        "max_length": 32, "sample_prompts": 0,
    }  # fmt: skip
    plain = hone.evaluate(model_folder, hone.load_config(base))
    found = hone.evaluate(model_folder, hone.load_config({**base, "eval_stride": 8}))
    assert found.n_items == plain.n_items == 6
    assert found.n_tokens > plain.n_tokens, "the first token of each piece counts, too"
    assert found.value("loss") != plain.value("loss")


def test_a_stride_as_long_as_the_window_is_a_conflict() -> None:
    with pytest.raises(HoneError, match=r"eval_stride is 32"):
        hone.load_config({"max_length": 32, "eval_stride": 32})
    with pytest.raises(HoneError, match="eval_stride: 32 is for task: causal"):
        hone.load_config({"eval_stride": 32, "task": "seq2seq"})
