"""The base model's benchmark: a 5-gram model that is one, and a model that pays for every token once."""

import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import base_model  # noqa: E402
import ngrams  # noqa: E402

VOCAB = 7


def documents(seed: int, n: int = 12, length: int = 40) -> list[np.ndarray]:
    """Small random texts over a few tokens, so that long grams repeat and short histories are shared."""
    rng = np.random.default_rng(seed)
    return [rng.integers(VOCAB - 2, size=rng.integers(1, length)) ** 2 % (VOCAB - 1) for _ in range(n)]


def kneser_ney(texts: list[np.ndarray], order: int) -> Any:
    """The textbook's recursion over dictionaries of tuples: p(word, history)."""
    raw = [
        Counter(tuple(map(int, text[i : i + k])) for text in texts for i in range(len(text) - k + 1))
        for k in range(1, order + 1)
    ]
    counts = [Counter(gram[1:] for gram in raw[k + 1]) for k in range(order - 1)] + [raw[-1]]

    def discount(k: int) -> float:
        once, twice = (sum(c == wanted for c in counts[k].values()) for wanted in (1, 2))
        return once / (once + 2 * twice) if once and twice else 0.5

    def p(word: int, history: tuple[int, ...]) -> float:
        shorter = p(word, history[1:]) if history else 1 / VOCAB
        k = len(history)
        following = {gram[-1]: c for gram, c in counts[k].items() if gram[:-1] == history}
        if not following:
            return shorter
        total, d = sum(following.values()), discount(k)
        return max(following.get(word, 0) - d, 0) / total + d * len(following) / total * shorter

    return p


@pytest.mark.parametrize("order", [1, 2, 5])
def test_ngrams_are_interpolated_kneser_ney(order: int) -> None:
    texts, held = documents(0), documents(1, n=4)[0]
    model, reference = ngrams.fit(texts, vocab_size=VOCAB, order=order), kneser_ney(texts, order)
    found = ngrams.log_probs(model, held)
    for i, word in enumerate(map(int, held)):
        history = tuple(map(int, held[max(0, i - order + 1) : i]))
        assert math.isclose(found[i], math.log(reference(word, history)), rel_tol=1e-9), i


def test_ngram_probabilities_sum_to_one() -> None:
    """After histories that were seen, half seen and never seen; token 6 occurs nowhere and is possible all the same."""
    model = ngrams.fit(documents(0), vocab_size=VOCAB)
    for history in (documents(0)[1][:4], np.array([0, 1, 4, 6]), np.array([6, 6, 6, 6]), np.array([], int)):
        p = [math.exp(ngrams.log_probs(model, np.append(history, word))[-1]) for word in range(VOCAB)]
        assert math.isclose(sum(p), 1.0, rel_tol=1e-12)
        assert min(p) > 0


@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 384, 385, 700])
def test_every_token_is_paid_for_once(length: int, tiny_model: Any) -> None:
    """A model that ignores its context costs the same in any windows: here one that finds all tokens equally likely."""
    import torch

    model = tiny_model("gpt2")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    bits = base_model.model_bits(model, np.arange(length) % 300)
    assert math.isclose(bits, length * math.log2(model.config.vocab_size), rel_tol=1e-5)


def test_a_short_file_costs_what_the_plain_model_says(tiny_model: Any) -> None:
    import torch

    model, ids = tiny_model("gpt2"), np.arange(60) * 7 % 390
    rows = torch.tensor(ids)[None]
    loss = model(input_ids=rows, labels=rows).loss.item() * 59
    wanted = (loss + math.log(model.config.vocab_size)) / math.log(2)
    assert math.isclose(base_model.model_bits(model, ids), wanted, rel_tol=1e-5)


@pytest.mark.slow
def test_the_table_has_a_line_for_each_side(
    tmp_path: Path,
    model_folder: Path,
    write_rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"text": f"def f{i}(x):\n    return x * {i} + {j}\n" * 9} for i in range(4) for j in range(3)]
    for name in ("held_out.jsonl", "train.jsonl"):
        write_rows(name, rows)
    monkeypatch.setattr(sys, "argv", ["base_model.py", "--model", str(model_folder), "--corpus", str(tmp_path)])
    base_model.main()
    said = capsys.readouterr().out
    assert "12 held-out files" in said
    assert "xz -9e of all files in one: " in said
    for name in ("gzip -9", "xz -9e", "5-gram, the same tokens", "the model, untrained", "the model, trained"):
        assert f"| {name} | " in said
