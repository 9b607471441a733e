"""Sampling by hand: worked distributions, transformers' filters on random logits, and what is drawn.

Whole tensors must agree with transformers' filters: exactly for top-k and top-p, to float32 rounding for temperature.
"""

import math
import random

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hone.config.sections.generate import GenerateSection
from hone.inference.sampling import next_tokens, top_k, top_p, with_temperature

INF = float("inf")
HALVES = torch.tensor([0.125, 0.5, 0.125, 0.25]).log()  # powers of two: their sums are exact


def kept(logits: torch.Tensor) -> list[int]:
    return torch.nonzero(logits > -INF).flatten().tolist()


def random_logits(seed: int, rows: int = 7, size: int = 501) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * (seed % 5 + 0.5)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 1.3, 5.0])
def test_temperature_as_in_transformers(temperature: float) -> None:
    for seed in range(5):
        logits = random_logits(seed)
        theirs = TemperatureLogitsWarper(temperature)(None, logits)
        torch.testing.assert_close(
            with_temperature(logits, temperature).softmax(-1), theirs.softmax(-1), atol=1e-6, rtol=1e-5
        )
    assert torch.equal(with_temperature(HALVES, 1.0).argsort(), HALVES.argsort())


@pytest.mark.parametrize("k", [1, 2, 50, 500, 501, 502, 10_000])
def test_top_k_as_in_transformers(k: int) -> None:
    for seed in range(5):
        logits = random_logits(seed)
        assert torch.equal(top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 0.5, 0.9, 0.95, 0.999, 1.0])
def test_top_p_as_in_transformers(p: float) -> None:
    for seed in range(5):
        logits = random_logits(seed)
        assert torch.equal(top_p(logits, p), TopPLogitsWarper(p)(None, logits))


def test_the_three_in_a_row_as_in_transformers() -> None:
    logits = random_logits(3)
    scaled = TemperatureLogitsWarper(0.5)(None, logits)
    theirs = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(20)(None, scaled))
    ours = top_p(top_k(scaled, 20), 0.8)
    assert torch.equal(ours, theirs)
    assert 1 < len(kept(ours[0])) <= 20


def test_temperature_worked_by_hand() -> None:
    # halving the temperature squares the odds: 1/64 : 16/64 : 1/64 : 4/64, of 22/64 in all
    expected = torch.tensor([1, 16, 1, 4]) / 22
    torch.testing.assert_close(with_temperature(HALVES, 0.5).softmax(-1), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(with_temperature(HALVES, 1e6).softmax(-1), torch.full((4,), 0.25), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-30, 1e-6])
def test_no_temperature_is_greedy(temperature: float) -> None:
    logits = random_logits(1)
    probabilities = with_temperature(logits, temperature).softmax(-1)
    assert torch.equal(probabilities.argmax(-1), logits.argmax(-1))
    torch.testing.assert_close(probabilities.amax(-1), torch.ones(7), atol=1e-3, rtol=0)
    settings = GenerateSection(temperature=temperature, max_new_tokens=1)
    assert next_tokens(logits, settings, [random.Random(5)] * 7) == logits.argmax(-1).tolist()


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert kept(with_temperature(torch.tensor([1.0, 3.0, 3.0]), 0.0)) == [1]


def test_top_k_by_hand() -> None:
    assert kept(top_k(HALVES, 1)) == [1]
    assert kept(top_k(HALVES, 2)) == [1, 3]
    assert kept(top_k(HALVES, 3)) == [0, 1, 2, 3], "0 and 2 are as likely as each other"
    for k in (0, 4, 99):
        assert torch.equal(top_k(HALVES, k), HALVES)


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.0, [1]), (0.4, [1]), (0.5, [1]), (0.5001, [1, 3]), (0.75, [1, 3]), (0.8, [0, 1, 3]), (0.875, [0, 1, 3]),
     (0.9, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])],
)  # fmt: skip
def test_top_p_by_hand(p: float, expected: list[int]) -> None:
    """The mass of 1, then 3, then 0 (the lower id of two equals), then 2: 0.5, 0.75, 0.875, 1."""
    assert kept(top_p(HALVES, p)) == expected
    left = top_p(HALVES, p)
    assert torch.equal(left[expected], HALVES[expected]), "what is kept is not changed"


def test_top_p_keeps_all_of_a_wide_vocabulary_at_1() -> None:
    logits = torch.cat([torch.tensor([30.0]), torch.zeros(50_000)])  # the mass of the first rounds to 1
    assert len(kept(top_p(logits, 1.0))) == 50_001
    assert kept(top_p(logits, 0.999)) == [0]


def test_top_p_keeps_the_lower_ids_of_many_equals() -> None:
    assert kept(top_p(torch.zeros(4096), 0.25)) == list(range(1024))


def test_any_leading_shape() -> None:
    logits = random_logits(2, rows=6).reshape(2, 3, 501)
    for function in (lambda x: with_temperature(x, 0.0), lambda x: top_k(x, 5), lambda x: top_p(x, 0.5)):
        assert torch.equal(function(logits)[1, 2], function(logits[1, 2]))


def test_draws_follow_the_distribution_and_the_seed() -> None:
    n = 20_000
    rows, settings = HALVES.expand(n, 4), GenerateSection(temperature=1.0, top_k=2)
    first, again, other = (next_tokens(rows, settings, [random.Random(seed)] * n) for seed in (0, 0, 1))
    assert first == again != other
    share = first.count(1) / n  # 2/3, the others 1/3 (token 3) and never
    assert abs(share - 2 / 3) < 4 * math.sqrt(2 / 9 / n)
    assert set(first) == {1, 3}


@pytest.mark.parametrize(
    "call",
    [lambda: with_temperature(HALVES, -1.0), lambda: with_temperature(HALVES, float("nan")), lambda: top_k(HALVES, -1),
     lambda: top_p(HALVES, 1.1), lambda: top_p(HALVES, -0.1), lambda: top_p(HALVES, float("nan"))],
)  # fmt: skip
def test_impossible_settings_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="expected 0"):
        call()  # type: ignore[operator]
