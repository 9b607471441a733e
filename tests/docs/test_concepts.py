"""docs/concepts.md: one section a concept, each found by its words, and its arithmetic done again."""

import json
import math
import re
from itertools import product
from typing import Any

import numpy as np
import pytest
from markdown_pages import DOCS, ROOT, Section, sections

from hone.data.tokenizer import load_tokenizer
from hone.grading.pass_at_k import pass_at_k
from hone.inference import sampling
from hone.statistics.intervals import mcnemar, minimum_detectable_mean, sign_flip, wilson_interval
from hone.tasks.seq2seq import rouge_l

PAGE = DOCS / "concepts.md"
CONCEPTS = [one for one in sections(PAGE) if one.level == 3]
BASE = ROOT / "src" / "hone" / "assets" / "base"
# A few of the words that people ask for.
ASKED = """
loss nats perplexity lora overfitting underfitting tokens token classification generation padding freezing
epoch temperature top-k top-p accuracy precision recall f1 bleu chrf pass@k interval mcnemar holm seed mde
learning_rate bf16 gradient_accumulation_steps contamination memorization template eos attention_mask adamw
masked fine-tuning
"""


def concept(heading: str) -> Section:
    return next(one for one in CONCEPTS if one.heading == heading)


def says(heading: str, *values: str) -> None:
    """The section holds each of these numbers, as a number of its own."""
    text = concept(heading).text.replace("−", "-")
    for value in values:
        assert re.search(rf"(?<![\d.,]){re.escape(value)}(?![\d]|[.,]\d)", text), f"{heading}: no {value}"


def cells(heading: str, table: int = 0) -> list[list[str]]:
    """The rows of a table, its heading left out."""
    return [[cell.replace("−", "-").replace(",", "") for cell in row] for row in concept(heading).tables[table][1:]]


# ---- its form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", CONCEPTS, ids=lambda one: one.heading)
def test_a_section_is_one_concept(one: Section) -> None:
    words = len(re.findall(r"[\w@%`*/.-]+", one.prose))
    assert one.explains, "a line <!-- explain: … -->"
    assert 60 <= words <= 200, words
    first = re.split(r"(?<=[a-z)*])[.:] ", one.prose)[0]
    assert not re.match(r"(It|They|This|That|These|Those|He|She) ", first), "its first sentence stands on its own"
    assert len(first.split()) <= 50, first


def test_a_word_finds_one_section() -> None:
    found = [word for one in CONCEPTS for word in one.explains]
    assert len(found) == len(set(found)), [word for word in set(found) if found.count(word) > 1]
    assert not (missing := set(ASKED.split()) - set(found)), missing
    assert all(word == word.lower() for word in found)


# ---- models --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shape() -> dict[str, Any]:
    return json.loads((BASE / "config.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def block_weights(width: int) -> int:
    """GPT-2's block: attention 4 matrices, the MLP 8, their biases, two norms."""
    return 12 * width**2 + 9 * width + 4 * width


def test_bundled_model(shape: dict[str, Any]) -> None:
    width, layers = shape["n_embd"], shape["n_layer"]
    total = (shape["vocab_size"] + shape["n_positions"]) * width + layers * block_weights(width) + 2 * width
    says("Pre-trained model", f"{total:,}")
    trained = 2 * block_weights(width) + 2 * width
    says(
        "Freezing",
        f"{block_weights(width):,}",
        f"{2 * width}",
        f"{trained:,}",
        f"{total:,}",
        f"{trained / total:.1%}"[:-1],
    )


def test_random_weights() -> None:
    says("Training from scratch", f"{math.log(8192):.2f}", f"{math.log(50257):.2f}")


def test_lora() -> None:
    width, values, rank, blocks = 1536, 2 * 128, 64, 28  # Qwen2-1.5B: 2 heads of keys and values of 128 numbers
    q, v = rank * (width + width), rank * (width + values)
    says("LoRA", f"{width * width:,}", f"{q:,}", f"{q / width**2:.1%}"[:-1], f"{v:,}", f"{q + v:,}")
    says("LoRA", f"{blocks * (q + v):,}", "1,552,430,592", f"{blocks * (q + v) / 1_552_430_592:.2%}"[:-1])


def test_memory_of_a_weight() -> None:
    says("Gradient descent", "16", f"{124e6 * 16 / 1e9:.1f}")


def test_tokens() -> None:
    tokenizer = load_tokenizer("hone-base")
    assert len(tokenizer) == 8192
    for text, count, pieces in cells("Token"):
        ids = tokenizer(text.strip("`").replace("(a b)", "(a, b)"))["input_ids"]
        assert len(ids) == int(count), text
        shown = [piece.strip("`") for piece in pieces.split(" · ")]
        assert [piece.strip("`") or "," for piece in shown] == [tokenizer.decode([i]) for i in ids]


def test_template() -> None:
    from hone.data.records import Instruction
    from hone.data.templates import render

    answer = "def double(x):\n    return 2 * x"
    row = Instruction("Write a function double(x) that returns twice x.", "", answer)
    text = "".join(segment.text for segment in render(row, "instruction", None))
    assert f"```\n{text.rstrip()}\n```" in concept("Template").text


# ---- losses --------------------------------------------------------------------------------------------------------


def test_nats_bits_and_perplexity() -> None:
    losses = [-math.log(p) for p in (1 / 2, 1 / 4, 1 / 8)]
    says("Nats", *(f"{nats:.3f}" for nats in losses), *(f"{nats / math.log(2):.0f}" for nats in losses))
    says("Nats", f"{1 / math.log(2):.3f}", f"{sum(losses) / math.log(2) / 12:.1f}")
    says(
        "Perplexity", *(f"{nats:.3f}" for nats in losses), f"{np.mean(losses):.3f}", f"{math.exp(np.mean(losses)):.2f}"
    )
    before, after, high, low = re.findall(r"\d+\.\d+", concept("Perplexity").prose.split("In the demo")[1])[:4]
    assert [math.exp(float(before)), math.exp(float(after))] == pytest.approx([float(high), float(low)], abs=0.01)


def test_accumulation() -> None:
    tokens, sums = [2, 8], [6.0, 8.0]
    says("Gradient accumulation", *(f"{x}" for x in (*sums, sum(tokens))))
    assert [row[-1] for row in cells("Gradient accumulation")] == [
        f"{sum(sums) / sum(tokens):.1f}",
        f"{np.mean([s / n for s, n in zip(sums, tokens)]):.1f}",
    ]


def test_steps() -> None:
    steps = math.ceil(413 / 8)
    says("Epochs, steps and batches", "413", f"{steps}", f"{4 * steps}")


def test_schedule() -> None:
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 100)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [rates[step] for step in (5, 10, 55)] == pytest.approx([5e-4, 1e-3, 5e-4])
    assert "5e-4 at step 5, 1e-3 at step 10 and 5e-4 again at step 55" in concept("Learning rate").prose


def test_overfitting_turns() -> None:
    training, held_out = ([float(cell) for cell in row[1:]] for row in cells("Overfitting"))
    assert training == sorted(training, reverse=True)
    assert int(np.argmin(held_out)) + 1 == 2 and "The best epoch is the second" in concept("Overfitting").prose
    assert held_out[-1] < 1.985, "worse than at its best, and still better than the base"


# ---- sampling ------------------------------------------------------------------------------------------------------

SCORES = [2.0, 1.0, 0.5, 0.0, -1.0]


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def kept(shares: np.ndarray, n: int) -> np.ndarray:
    """The first n of falling shares, scaled to add up to 1."""
    return np.where(np.arange(len(shares)) < n, shares, 0) / shares[:n].sum()


def thousandths(values: Any) -> list[str]:
    return ["0" if value == 0 else f"{value:.3f}" for value in values]


def test_temperature() -> None:
    says("Temperature", *(f"{score}" for score in SCORES))
    for row in cells("Temperature"):
        assert row[1:] == thousandths(softmax(np.array(SCORES) / float(row[0])))


def test_top_k_and_top_p_alone() -> None:
    hot = softmax(np.array(SCORES) / 2)
    says("Top-k", *thousandths(hot), *thousandths(kept(hot, 4)[:4]))
    plain = softmax(np.array(SCORES))
    n = int(np.searchsorted(plain.cumsum(), 0.8)) + 1
    says("Top-p", *thousandths(plain.cumsum()[:n]), *thousandths(kept(plain, n)[:n]))
    says("Top-p", f"{softmax(np.array(SCORES) / 0.5)[0]:.3f}")


def test_order() -> None:
    """By hand, and by the functions that decoding uses."""
    import torch

    heading = "The order of temperature, top-k and top-p"
    hot = softmax(np.array(SCORES) / 2)
    after_k = kept(hot, 4)
    n = int(np.searchsorted(after_k.cumsum(), 0.8)) + 1
    by_hand = [hot, after_k, kept(after_k, n)]
    assert [row[1:] for row in cells(heading)] == [thousandths(row) for row in by_hand]
    scaled = sampling.with_temperature(torch.tensor(SCORES, dtype=torch.float64), 2)
    cut = sampling.top_k(scaled, 4)
    for values, scores in zip(by_hand, (scaled, cut, sampling.top_p(cut, 0.8)), strict=True):
        assert scores.softmax(-1).tolist() == pytest.approx(values.tolist())
    says(heading, *thousandths(after_k.cumsum()[:3]), *thousandths(hot.cumsum()[:4]))
    assert int(np.searchsorted(hot.cumsum(), 0.8)) + 1 == 4


# ---- metrics -------------------------------------------------------------------------------------------------------


def test_confusion() -> None:
    (tp, fn), (fp, tn) = ([int(cell) for cell in row[1:]] for row in cells("Confusion matrix"))
    total = tp + fn + fp + tn
    says("Accuracy", f"{(tp + tn) / total:.3f}", f"{(fp + tn) / total:.3f}")
    recalls = tp / (tp + fn), tn / (tn + fp)
    says("Accuracy", *(f"{recall:.3f}" for recall in recalls), f"{np.mean(recalls):.4f}")
    scores = []
    for right, recall, called in ((tp, recalls[0], tp + fp), (tn, recalls[1], tn + fn)):
        precision = right / called
        scores.append((precision, recall, 2 * precision * recall / (precision + recall)))
    assert [row[-1] for row in cells("Precision, recall and F1")] == thousandths(scores[0])
    says("Precision, recall and F1", *thousandths(scores[1]), f"{np.mean([f1 for *_, f1 in scores]):.3f}")


def test_text_scores() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    heading = "Exact match, chrF, BLEU and ROUGE-L"
    text, reference = re.findall(r"`(return [^`]+)`", concept(heading).prose)[:2]
    chrf, bleu = (score.corpus_score([text], [[reference]]).score for score in (CHRF(), BLEU(effective_order=False)))
    wanted = [f"{text == reference:d}", f"{rouge_l(text, reference):.3f}", f"{chrf:.1f}", f"{bleu:.1f}"]
    assert [row[2] for row in cells(heading)] == wanted
    assert rouge_l(text, reference) == pytest.approx(2 * 5 / (6 + 6))


def test_pass_at_k() -> None:
    ways = math.comb(7, 5), math.comb(10, 5)
    says("pass@k", f"{pass_at_k(10, 3, 1):.3f}", f"{pass_at_k(10, 3, 5):.3f}")
    assert f"1 − {ways[0]}/{ways[1]}" in concept("pass@k").prose
    assert pass_at_k(10, 3, 5) == pytest.approx(1 - ways[0] / ways[1])


# ---- chance --------------------------------------------------------------------------------------------------------


def test_intervals() -> None:
    for right, n, share, interval in cells("Confidence interval"):
        found = wilson_interval(int(right), int(n))
        assert (share, interval) == (f"{found.value:.3f}", f"[{found.low:.3f} {found.high:.3f}]")


def test_p_values() -> None:
    says("p-value", f"{sign_flip(np.ones(6)):.3f}", "1.8e-12", f"{mcnemar(4, 10):.2f}")
    assert f"{mcnemar(0, 40):.1e}" == "1.8e-12"
    assert sum(abs(sum(signs)) == 6 for signs in product((1, -1), repeat=6)) == 2


def test_two_rows() -> None:
    for n, p in cells("Why two rows never suffice"):
        assert float(p) == sign_flip(np.ones(int(n))) == 2 / 2 ** int(n)


def test_detectable_effect() -> None:
    for n, smallest in cells("Minimum detectable effect"):
        assert smallest == f"{minimum_detectable_mean(0.3, int(n)):.3f}"
