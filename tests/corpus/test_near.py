"""Near-copies: the rate at which they are found is the stated one, and the same pairs come from datatrove's own way."""

import random
from pathlib import Path

import numpy as np
import pytest
from small_corpus import near_copy, prose

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

from hone.corpus.near import Signatures, chance_to_be_found
from hone.corpus.schema import NearSection

RULES = NearSection()


def share(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def agree(a: list[list[int]], b: list[list[int]]) -> bool:
    return any(x == y for x, y in zip(a, b))


@pytest.mark.parametrize("changed", [1, 4, 8, 16])
def test_pairs_are_found_at_the_stated_rate(changed: int, tmp_path: Path) -> None:
    rng = random.Random(changed)
    step = Signatures(tmp_path, RULES)
    expected, found = [], 0
    for _ in range(150):
        text = " ".join(f"w{rng.randrange(5000)}" for _ in range(300))
        runs = [step.get_shingles(one) for one in (text, near_copy(rng, text, changed))]
        expected.append(chance_to_be_found(share(*(set(one.tolist()) for one in runs)), RULES))
        found += agree(*(step.get_signature(one) for one in runs))
    mean, deviation = np.mean(expected), np.sqrt(np.sum(np.multiply(expected, np.subtract(1, expected)))) / 150
    assert abs(found / 150 - mean) < 4 * deviation + 0.01


def test_different_texts_are_not_near(tmp_path: Path) -> None:
    rng = random.Random(0)
    step = Signatures(tmp_path, RULES)
    signed = [step.get_signature(step.get_shingles(prose(rng, 200))) for _ in range(100)]
    assert not any(agree(signed[i], signed[j]) for i in range(100) for j in range(i))


def test_equal_texts_agree_wholly_and_short_ones_have_a_signature(tmp_path: Path) -> None:
    step = Signatures(tmp_path, RULES)
    assert step.get_signature(step.get_shingles("a b c d e f")) == step.get_signature(
        step.get_shingles("a  b c\nd e f")
    )
    assert step.get_shingles("a b").size == 1 and step.get_shingles("").size == 0
    groups = step.get_signature(step.get_shingles("a b"))
    assert len(groups) == 14 and all(len(group) == 8 for group in groups)
    assert max(max(group) for group in groups) < 2**61 - 1, "datatrove stops reading at its prime"


def test_a_long_text_is_hashed_in_pieces_to_the_same_signature(tmp_path: Path) -> None:
    step = Signatures(tmp_path, RULES)
    runs = step.get_shingles(" ".join(f"w{i}" for i in range(6000)))
    whole = (runs[None] * step._factors + step._shifts).min(axis=1) >> np.uint64(4)
    assert step.get_signature(runs) == whole.reshape(14, 8).tolist()
