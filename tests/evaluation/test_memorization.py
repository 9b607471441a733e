"""Copied windows against a plain search, what is nobody's own, and a model that has learned its rows by heart."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hone
from hone.config import load_config
from hone.evaluation.memorization import CHARACTERS, Copied, copies, copying_of, describe
from hone.results.contamination import Continuations, Memorization


def text(seed: int, n: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=n))


def by_search(written: str, rows: list[str]) -> np.ndarray:
    found = np.zeros(len(written), bool)
    for at in range(len(written) - CHARACTERS + 1):
        window = written[at : at + CHARACTERS]
        if any(window in row for row in rows):
            found[at : at + CHARACTERS] = True
    return found


@pytest.mark.parametrize("seed", range(5))
def test_characters_against_a_plain_search(seed: int) -> None:
    rows = [text(100 + i, 200) + "é" * (i % 2) for i in range(10)]
    draw = random.Random(seed)
    pieces = [draw.choice(rows)[(at := draw.randrange(100)) : at + draw.randrange(30, 90)] for _ in range(6)]
    written = "|".join(pieces)
    (found,) = copies([written], [rows[:4], rows[4:]])
    assert found.characters.tolist() == by_search(written, rows).tolist()
    assert 0 < found.n < len(written)


@pytest.mark.parametrize(("length", "copied"), [(CHARACTERS - 1, False), (CHARACTERS, True)])
def test_one_character_less_is_no_copy(length: int, copied: bool) -> None:
    row = text(1, 100).replace(" ", "_")  # one word: only characters can be copied
    (found,) = copies(["? " + row[20 : 20 + length] + " ?"], [[row]])
    assert bool(found) is copied and found.n == (length if copied else 0)


@pytest.mark.parametrize(("n", "copied"), [(12, False), (13, True)])
def test_thirteen_short_words_are_a_copy_whatever_the_white_space(n: int, copied: bool) -> None:
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o"]
    (found,) = copies(["\n".join(words[:n])], [[" ".join(words)]])
    assert (bool(found), found.n) == (copied, 0)


@pytest.mark.parametrize("idle", ["-" * 80, "0, " * 40, " " * 80, "x = x\n" * 30])
def test_runs_of_the_same_are_nobodys(idle: str) -> None:
    assert not copies([idle], [[idle + idle]])[0]


def test_a_copy_does_not_cross_rows() -> None:
    row = text(1, 60)
    assert not copies([row], [[row[:30], row[30:]]])[0]


def test_shares_by_hand() -> None:
    def made(*n: int) -> list[Copied]:
        return [Copied(np.arange(100) < k, k > 90) for k in n]

    found = copying_of({"base": made(0, 0, 60, 0), "tuned": made(100, 0, 0, 50)})
    assert (found.copying["base"].value, found.copying["tuned"].value) == (0.25, 0.5)
    assert found.copied_characters["tuned"].value == 150 / 400
    change = found.change
    assert change and change.difference.bounds and change.test == "McNemar"
    assert (change.difference.value, change.only_b, change.only_a) == (0.25, 2, 1)
    assert change.difference.bounds[0] < 0.25 < change.difference.bounds[1]
    assert "of 4 held-out prompts, tuned continues 50% [" in describe("held_out", found)


@pytest.mark.slow
def test_a_model_that_has_learned_its_rows_recites_them(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    """Four rows, trained until known by heart: their beginnings are continued with them."""
    rows = [{"text": text(i, 90)} for i in range(4)]
    config = {
        "model_name_or_path": str(model_folder),
        "train_file": str(write_rows("train.jsonl", rows)),
        "validation_file": str(write_rows("val.jsonl", [{"text": text(50 + i, 90)} for i in range(4)])),
        "max_length": 128,
        "learning_rate": 2e-2,
        "max_steps": 80,
        "per_device_train_batch_size": 4,
        "logging_steps": 60,
        "sample_prompts": 2,
        "sample_max_new_tokens": 70,
        "memorization_samples": 4,
        "output_dir": str(tmp_path / "run"),
        "use_cpu": True,
    }
    run = hone.train(load_config(config))
    found = run.read(Memorization, "memorization")
    assert found is not None
    training = found.prompts["training"]
    assert training.n_items == 4 and training.copying["base"].value == 0.0
    assert training.copying["tuned"].value >= 0.75
    assert training.copied_characters["tuned"].value > 0.5
    assert found.n_rows == 4 and found.prompts["held_out"].n_items == 4
    copied = found.examples[0].copied
    assert len(copied) >= CHARACTERS and any(copied in row["text"] for row in rows)

    own = run.read(Continuations, "memorization.tuned")
    assert run.tuned and own
    samples, held_out = ({s.item: s.text for s in texts} for texts in (run.tuned.samples, own.held_out))
    assert samples and samples.items() <= held_out.items()


def test_off_by_default(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = {"model_name_or_path": str(model_folder), "max_length": 64, "max_steps": 1, "use_cpu": True}
    config |= {"train_file": str(write_rows("t.jsonl", [{"text": text(i, 60)} for i in range(8)]))}
    run = hone.train(load_config({**config, "output_dir": str(tmp_path / "run"), "sample_prompts": 0}))
    assert not list((run.folder / "eval").glob("memorization*"))
