"""Copies are found however they are disguised, what is nobody's own is not counted, and a run says and drops it."""

import importlib
import logging
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hone
from hone.config import load_config
from hone.data import contamination
from hone.data.contamination import Pair, find_contamination
from hone.data.ngrams import N, code_form, plain_form
from hone.errors import HoneError
from hone.results.contamination import Contamination

MEDIAN = '''def median(values, ordered=False):
    """The middle of some numbers."""
    if not ordered:
        values = sorted(values)  # a copy
    middle = len(values) // 2
    if len(values) % 2 == 1:
        return values[middle]
    return (values[middle - 1] + values[middle]) / 2
'''
DISGUISED = """def center(xs, is_sorted=False):
  # nothing to see here
  if not is_sorted:
    xs = sorted(xs)
  m = len(xs)//2
  if len(xs) % 2==1:
    return xs[m]
  return (xs[m-1] + xs[m]) / 2"""
OTHER = """def primes(limit):
    found = []
    for n in range(2, limit):
        if all(n % p for p in found):
            found.append(n)
    return found
"""


def pairs(items: list[str], rows: list[str]) -> list[Pair]:
    return find_contamination(items, [rows], len(rows)).pairs


def words(seed: int, n: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefgh", k=6)) for _ in range(n))


def test_white_space_is_nothing() -> None:
    assert [p[:3] for p in pairs(["a  b\n\tc"], ["x", "a b c", "a b c d"])] == [(0, 1, "exact")]


def test_the_same_program_in_disguise() -> None:
    assert [p[:3] for p in pairs([MEDIAN], [OTHER, DISGUISED])] == [(0, 1, "same code")]


@pytest.mark.parametrize("change", [("% 2 == 1", "% 3 == 1"), (" / 2", " / n"), ("sorted(", "list("), ("[m]", "[0]")])
def test_another_program_is_not_the_same(change: tuple[str, str]) -> None:
    changed = DISGUISED.replace("%2==1", "% 2 == 1").replace("% 2==1", "% 2 == 1").replace(*change)
    assert changed != DISGUISED
    assert [p.kind for p in pairs([MEDIAN], [changed])] == ["near"]


def test_swapped_variables_are_another_program() -> None:
    a, b = "def f(a, b):\n    c = a + 1\n    return a - b * c", "def f(a, b):\n    c = a + 1\n    return b - a * c"
    assert code_form([a]).digests() != code_form([b]).digests()


def test_share_by_hand() -> None:
    """30 words have 18 runs of 13; a row with the first 25 of them holds 13 of these."""
    text = words(0, 30)
    (pair,) = pairs([text], [words(1, 40), " ".join(text.split()[:25]) + " " + words(2, 40)])
    assert pair == Pair(0, 1, "near", 13 / 18, 0.0)


def test_below_half_is_no_contamination() -> None:
    text = words(0, 30)
    assert pairs([text], [" ".join(text.split()[:20])]) == []  # 8 of 18
    assert pairs([text], [" ".join(text.split()[:21])]) != []  # 9 of 18


def test_every_row_of_an_item_is_found_once() -> None:
    text = words(0, 40)
    rows = [text + " end", words(5, 20), "start " + text, text + " " + text]
    assert sorted(p.row for p in pairs([text], rows)) == [0, 2, 3]


def test_short_items_are_looked_for_as_a_whole_only() -> None:
    found = find_contamination(["one two three", words(0, 20)], [["one two three four", "one  two three"]], 2)
    assert [p[:3] for p in found.pairs] == [(0, 1, "exact")]
    assert found.n_short == 1


def test_what_many_rows_hold_is_nobodys() -> None:
    """A frame of 20 words around 20 own ones: alone it would be 8 of the 28 runs, and 20 with those on the border."""
    frame = words(99, 30)
    rows = [f"{frame} {words(i, 10)}" for i in range(40)]
    item = f"{frame} {words(1000, 10)}"
    assert pairs([item], rows) == []
    assert [p.kind for p in pairs([item], rows[:5])] == ["near"] * 5  # too few rows to tell a frame from a copy
    assert [p[:3] for p in pairs([rows[3]], rows)] == [(0, 3, "exact")]


def test_variables_of_prose_are_not_hidden() -> None:
    """Words are no code: two sentences of the same shape are two sentences."""
    assert pairs([words(0, 40)], [words(1, 40)]) == []
    assert len(code_form([words(0, 40)]).codes) == 0


def test_code_after_an_instruction_is_found_under_another_instruction() -> None:
    rows = [f"### Instruction:\n{words(1, 20)}\n\n### Response:\n{DISGUISED}"]
    item = f"### Instruction:\n{words(2, 20)}\n\n### Response:\n{MEDIAN}"
    assert [p.kind for p in pairs([item], rows)] == ["same code"]


def test_ngrams_against_slices() -> None:
    """The hashes are equal exactly where the tokens are, against a plain comparison of all pairs."""
    draw = random.Random(3)
    texts = [" ".join(draw.choices("ab", k=60)) for _ in range(3)] + ["a b", ""]
    hashes, owners = plain_form(texts).ngrams(4)
    slices = [(i, tuple(t.split()[j : j + 4])) for i, t in enumerate(texts) for j in range(len(t.split()) - 3)]
    assert owners.tolist() == [i for i, _ in slices]
    for a in range(0, len(slices), 7):
        same = [slices[a][1] == tokens for _, tokens in slices]
        assert (hashes == hashes[a]).tolist() == same


def test_batches_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [words(i, 30) for i in range(50)] + [MEDIAN, DISGUISED]
    items = [rows[3], rows[10] + " x", MEDIAN]
    whole = find_contamination(items, [rows], len(rows))
    monkeypatch.setattr(contamination, "EXPANDED", 3)
    assert find_contamination(items, [rows[i : i + 7] for i in range(0, len(rows), 7)], len(rows)) == whole
    assert len(whole.pairs) == 4


@pytest.mark.parametrize(
    "text", ['\\"' * 200_000, '"""' * 100_001, "def f(" + "(" * 100_000, "'" * 100_000, "\x00def f("]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    began = time.process_time()
    pairs([text, "def f(x):\n" + text], [text + " 1", "def g(x):\n" + text])
    assert time.process_time() - began < 5


def test_the_benchmark_finds_what_it_plants(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    importlib.import_module("overlap_rates").main(["--items", "20", "--rows", "100", "--show", "0", "--modules", "60"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {line.split(" | ")[0].strip("| "): line.split(" | ")[1] for line in lines}
    assert found["verbatim"] == found["indented otherwise"] == "20 of 20"
    assert len(found) == 1 + 1 + 7


def rows_of(texts: list[str]) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


@pytest.fixture
def planted(model_folder: Path, write_rows: Any) -> dict[str, Any]:
    train = write_rows(
        "train.jsonl", rows_of([OTHER, *(words(i, 20) for i in range(30)), DISGUISED, words(50, 20) + " ."])
    )
    held = write_rows("val.jsonl", rows_of([words(100, 20), MEDIAN, words(50, 20), "two words"]))
    return {
        "model_name_or_path": str(model_folder),
        "train_file": str(train),
        "validation_file": str(held),
        "max_length": 128,
    }


def test_prepare_says_and_caches(planted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(planted)
    first = hone.prepare(config)
    assert first.contamination is not None
    assert [(e.item, e.row, e.kind) for e in first.contamination.items] == [(1, 31, "same code"), (2, 32, "near")]
    assert (first.contamination.n_items, first.contamination.n_rows, first.contamination.n_short) == (4, 33, 1)
    assert first.contamination.items[0].row_text.startswith("def center")
    from hone.data.prepare import describe

    lines = [line.removeprefix("data: contamination: ") for line in describe(first, "flat") if "contamination" in line]
    assert lines == [
        "of 4 validation documents, 1 is in the training rows and 1 nearly matches one",
        "val.jsonl:2 is train.jsonl:32 (the same code): " + repr(MEDIAN[:32]),
        "val.jsonl:3 nearly matches train.jsonl:33 (100% of its 13-word runs): " + repr(words(50, 20)[:32]),
        "1 item has fewer than 13 words: only looked for as a whole",
    ]

    monkeypatch.setattr(contamination, "_find", None)  # not needed a second time
    assert hone.prepare(config).contamination == first.contamination


@pytest.mark.parametrize(
    ("row", "extra"),
    [
        ({"instruction": "Write the median.", "output": MEDIAN}, {}),
        (
            {"question": "Write the median.", "answer": MEDIAN},
            {"column_mapping": {"prompt": "question", "completion": "answer"}},
        ),
        ({"prompt": "Write the median.\n", "completion": MEDIAN}, {"template": "instruction"}),
    ],
)
def test_the_files_lines_are_found_whatever_the_form(
    model_folder: Path, write_rows: Any, row: dict[str, Any], extra: dict[str, Any]
) -> None:
    last = list(row)[-1]
    others = [{**row, last: words(i, 20)} for i in range(12)]
    held = write_rows("val.jsonl", [*others[:2], {**row, last: MEDIAN.replace("    ", "  ")}])
    train = write_rows("train.jsonl", [*others[3:7], row, *others[7:]])
    found = hone.prepare(
        model_name_or_path=str(model_folder), train_file=str(train), validation_file=str(held), **extra
    )
    assert found.contamination is not None
    assert [(one.where, one.row_where) for one in found.contamination.items] == [("val.jsonl:3", "train.jsonl:5")]


def test_drop_leaves_the_rows_out(planted: dict[str, Any]) -> None:
    kept, dropped = (hone.prepare(load_config({**planted, "overlap": how})) for how in ("flag", "drop"))
    assert (len(kept.train), len(dropped.train)) == (33, 31)
    assert not {31, 32} & set(dropped.train.documents.tolist())
    (first, *_) = contamination.describe(dropped.contamination, dropped=True)
    assert (
        first
        == "contamination: 2 rows that held or nearly matched 2 of 4 validation documents are dropped; none is left"
    )
    assert dropped.train.left_out["examples dropped: their row holds a validation item"] == 2
    assert len(dropped.validation) == len(kept.validation)


def test_off_looks_for_nothing(planted: dict[str, Any]) -> None:
    assert hone.prepare(load_config({**planted, "overlap": "off"})).contamination is None


def test_nothing_left_after_drop_is_said(planted: dict[str, Any], write_rows: Any) -> None:
    held = write_rows("held.jsonl", rows_of([DISGUISED + " "]))
    train = write_rows("few.jsonl", rows_of([MEDIAN]))
    config = load_config({**planted, "train_file": str(train), "validation_file": str(held), "overlap": "drop"})
    with pytest.raises(HoneError, match="every training row holds"):
        hone.prepare(config)


def test_only_what_is_trained_and_measured_counts(planted: dict[str, Any]) -> None:
    few = hone.prepare(load_config({**planted, "max_train_samples": 10}))
    assert few.contamination is not None
    assert (few.contamination.n_rows, few.contamination.n_contaminated) == (10, 0)
    one = hone.prepare(load_config({**planted, "max_eval_samples": 2}))
    assert one.contamination is not None
    assert (one.contamination.n_items, one.contamination.n_contaminated) == (2, 1)


def test_a_single_text_is_looked_at_in_pieces(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(words(0, 900) + " " + words(0, 80))
    config = load_config(
        {"model_name_or_path": str(model_folder), "train_file": str(tmp_path / "book.txt"), "max_length": 200}
    )
    found = hone.prepare(config).contamination
    assert found is not None
    assert found.item == "piece" and found.n_items > 1 and found.n_rows == 1
    assert found.n_contaminated >= found.n_items / 2  # the last words are the first again


def test_too_much_to_look_through_is_said(planted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination, "LOOKED_THROUGH", 100)
    found = hone.prepare(load_config(planted)).contamination
    assert found is not None and found.not_searched
    assert "not looked for" in contamination.describe(found)[0]
    assert len(hone.prepare(load_config({**planted, "overlap": "drop"})).train) == 31


def test_token_files_are_looked_through_once(
    model_folder: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = tokenizer.eos_token_id
    documents = [[*tokenizer(words(i, 20))["input_ids"], end] for i in (*range(8), 3)]
    np.concatenate(documents).astype("<u2").tofile(tmp_path / "train.bin")
    config = {"model_name_or_path": str(model_folder), "train_file": str(tmp_path / "train.bin"), "max_length": 200}
    first = hone.prepare(load_config(config)).contamination
    assert first is not None
    assert [(e.item, e.row, e.kind) for e in first.items] == [(0, 3, "exact")]
    monkeypatch.setattr(contamination, "_find", None)
    assert hone.prepare(load_config(config)).contamination == first


def test_a_damaged_or_unwritable_cache_costs_nothing_but_time(planted: dict[str, Any]) -> None:
    first = hone.prepare(load_config(planted))
    assert first.store.folder is not None and first.contamination is not None
    (kept,) = first.store.folder.glob("contamination-*.json")
    kept.write_text("{")
    again = hone.prepare(load_config(planted)).contamination
    assert again is not None and again.items == first.contamination.items
    kept.unlink()
    kept.mkdir()
    once_more = hone.prepare(load_config(planted)).contamination
    assert once_more is not None and once_more.items == first.contamination.items


def test_classification_and_long_rows_in_pieces(
    planted: dict[str, Any], write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": words(i, 30), "label": "ab"[i % 2]} for i in range(20)]
    train = write_rows("train_labels.jsonl", rows)
    held = write_rows("val_labels.jsonl", [{"text": f"{words(4, 30)} !", "label": "a"}, {"text": "new", "label": "b"}])
    config = {**planted, "task": "classification", "train_file": str(train), "validation_file": str(held)}
    monkeypatch.setattr(contamination, "PIECE_TOKENS", 120)  # less than a row
    dropped = hone.prepare(load_config({**config, "overlap": "drop"}))
    assert dropped.contamination is not None
    assert len(dropped.train) == 20 - len(dropped.contamination.rows) and 4 in dropped.contamination.rows


def test_a_run_writes_it(planted: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hone"):
        config = {**planted, "output_dir": str(tmp_path / "run"), "use_cpu": True, "max_steps": 1, "sample_prompts": 0}
        run = hone.train(load_config(config))
    found = run.read(Contamination, "contamination")
    assert found and found.n_contaminated == 2
    assert "val.jsonl:2 is train.jsonl:32 (the same code)" in caplog.text
    assert found.n == N
