"""What holds for any rows, lengths and sizes: readers, templates, store, length rules, batches (hypothesis)."""

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.batches import EpochBatches, by_length, flat, pack, packed, padded
from hone.data.encode import Encoded
from hone.data.records import Chat, Example, Instruction, Message, Pair, Text, examples
from hone.data.sources import read_rows
from hone.data.split import Dropped, SplitRule
from hone.data.store import Split
from hone.data.store_writer import write_store
from hone.data.templates import render, render_prompt
from hone.data.truncate import LongRow, view

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FEW = settings(max_examples=40, deadline=None, derandomize=True)
MANY = settings(max_examples=150, deadline=None, derandomize=True)


# ---- rows ------------------------------------------------------------------------------------------------------------


def written(rows: list[dict[str, str]], folder: Path) -> list[Path]:
    """The rows in every format that can hold them."""
    import pyarrow
    import pyarrow.parquet

    lines = "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(rows))
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerows([list(rows[0]), *([row[name] for name in rows[0]] for row in rows)])
    tables = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tables)
    contents = {
        "a.jsonl": lines.encode(),
        "b.json": json.dumps(rows, ensure_ascii=False, indent=2).encode(),
        "c.json": json.dumps({"data": rows, "n": 1}).encode(),
        "d.json": "".join(json.dumps(row, indent=1) + "\n" for row in rows).encode(),
        "e.csv": table.getvalue().encode(),
        "f.parquet": tables.getvalue(),
    }
    contents |= {f"{name}.gz": gzip.compress(content, 1) for name, content in contents.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@settings(max_examples=10, deadline=None, derandomize=True)  # what parquet says of itself is asked in a process
@given(rows=st.lists(st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS}), min_size=1, max_size=8))
def test_every_format_gives_the_same_rows(rows: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = written(rows, Path(folder))
        read = list(read_rows(paths, on_bad_row="error", on_skip=print))
        for path in paths:
            found = [row for row in read if row.source == str(path)]
            if ".csv" not in path.name or not any("\r" in str(row) for row in rows):  # its reader may take it for "\n"
                assert [dict(row.columns) for row in found] == rows, path.name
            pairs = [example for _, example in examples(found, column_mapping={}, on_bad_row="error", on_skip=print)]
            assert len(pairs) == len(rows) and all(isinstance(example, Pair) for example in pairs)


@FEW
@given(
    good=st.lists(TEXTS, min_size=1, max_size=5),
    bad=st.lists(st.sampled_from(["{", "[]", "3", '{"text": 1}', '{"txt": "a"}', '{"text": "\\ud800"}']), max_size=4),
    seed=st.randoms(use_true_random=False),
)
def test_skipping_bad_rows_gives_the_good_ones_and_counts_the_others(
    good: list[str], bad: list[str], seed: Any
) -> None:
    lines = [(json.dumps({"text": text}), text) for text in good[1:]] + [(line, None) for line in bad]
    seed.shuffle(lines)
    lines = [(json.dumps({"text": good[0]}), good[0]), *lines]
    skipped: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.jsonl"
        path.write_text("".join(f"{line}\n" for line, _ in lines))
        read = read_rows([path], on_bad_row="skip", on_skip=lambda reason, where: skipped.append(where))
        skip = lambda reason, where: skipped.append(where)  # noqa: E731
        found = list(examples(read, column_mapping={}, on_bad_row="skip", on_skip=skip))
    assert [example for _, example in found] == [Text(text) for _, text in lines if text is not None]
    assert sorted(skipped) == sorted(f"{path}:{i}" for i, (_, text) in enumerate(lines, 1) if text is None)


# ---- templates -------------------------------------------------------------------------------------------------------


@MANY
@given(prompt=TEXTS, given_text=TEXTS, answer=TEXTS, template=st.sampled_from(["plain", "instruction"]))
def test_segments_are_the_prompt_and_then_the_answer(prompt: str, given_text: str, answer: str, template: str) -> None:
    pairs: list[Example] = [Pair(prompt, answer), Instruction(prompt, given_text, answer)]
    for example in pairs:
        segments = render(example, template, None)
        assert "".join(s.text for s in segments if s.supervised) == answer
        assert "".join(s.text for s in segments) == render_prompt(example, template, None) + answer
        assert [s.supervised for s in segments] == [False, True]
        whole = "".join(s.text for s in segments)
        assert prompt in whole and (given_text in whole or isinstance(example, Pair))


@FEW
@given(contents=st.lists(st.text("abc <|>\n", min_size=1, max_size=8).filter(str.strip), min_size=2, max_size=5))
def test_of_a_conversation_what_the_assistant_says_is_supervised(tokenizer: Any, contents: list[str]) -> None:
    import copy

    chat = copy.copy(tokenizer)
    chat.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    messages = [Message("user" if i % 2 == 0 else "assistant", content) for i, content in enumerate(contents)]
    segments = render(Chat(messages), "chat", chat)
    assert "".join(s.text for s in segments) == "".join(f"<{m.role}>{m.content}</s>\n" for m in messages)
    said = [f"{m.content}</s>" for m in messages if m.role == "assistant"]
    assert [s.text for s in segments if s.supervised] == said


# ---- store -----------------------------------------------------------------------------------------------------------

DOCUMENTS = st.lists(
    st.lists(st.tuples(st.integers(0, 299), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=12
)


@FEW
@given(documents=DOCUMENTS, wide=st.booleans(), percentage=st.sampled_from([0.0, 20.0]), pieces=st.integers(1, 3))
def test_a_store_gives_back_what_was_written(documents: Any, wide: bool, percentage: float, pieces: int) -> None:
    """Whatever the lengths and masks, and in how many pieces a document comes."""
    rows, wanted = [], []
    for document in documents:
        ids, mask = (np.array(part) for part in zip(*document, strict=True))
        cuts = np.array_split(np.arange(len(ids)), min(pieces, len(ids)))
        rows += [Encoded(ids[cut], mask[cut], cut[-1] == len(ids) - 1) for cut in cuts]
        wanted.append((ids.tolist(), mask.tolist()))
    with tempfile.TemporaryDirectory() as folder:
        rule = SplitRule(percentage, seed=0, deduplicate=False, continuous=False)
        about: dict[str, Any] = {"vocab_size": 70_000 if wide else 300, "dropped": Dropped(), "meta": {}}
        store = write_store(Path(folder) / "store", rows, None, rule, **about)
        found = []
        for split in (store.train, store.val):
            for start, end in zip(split.starts[:-1], split.starts[1:]):
                mask = np.ones(end - start, bool) if split.supervised is None else split.supervised[start:end] > 0
                found.append((split.tokens[start:end].tolist(), mask.tolist()))
        assert store.train.tokens.dtype == (np.uint32 if wide else np.uint16)
        del store
    assert sorted(found) == sorted(wanted)
    assert percentage or found == wanted, "in their order"


# ---- lengths and batches ---------------------------------------------------------------------------------------------


RULES: tuple[LongRow, ...] = ("truncate", "drop", "split", "windows")


def split_of(sizes: list[int]) -> Split:
    """Documents of these sizes; each token is its own number."""
    starts = np.cumsum([0, *sizes])
    return Split(np.arange(starts[-1], dtype=np.uint32), None, starts)


@MANY
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), length=st.integers(2, 15))
def test_each_rule_of_length_takes_each_token_once(sizes: list[int], length: int) -> None:
    split = split_of(sizes)
    seen: dict[str, list[list[int]]] = {}
    for rule in RULES:
        data = view(split, length, rule)
        seen[rule] = [data[i]["input_ids"].tolist() for i in range(len(data))]
    for rule, pieces in seen.items():
        tokens = [token for piece in pieces for token in piece]
        assert tokens == sorted(set(tokens)), f"{rule}: in order, none twice"
        assert all(1 < len(piece) <= length for piece in pieces), rule
    ends = dict(zip(split.starts[:-1].tolist(), sizes, strict=True))
    assert seen["truncate"] == [list(range(a, a + min(n, length))) for a, n in ends.items() if n > 1]
    assert seen["drop"] == [list(range(a, a + n)) for a, n in ends.items() if 1 < n <= length]
    left = {a + n - 1 for a, n in ends.items() if n % length == 1}  # a lone last token has nothing before it
    assert {t for piece in seen["split"] for t in piece} == set(range(sum(sizes))) - left
    assert {t for p in seen["windows"] for t in p} == {a + i for a, n in ends.items() for i in range(n - n % length)}


@MANY
@given(
    n=st.integers(1, 60), size=st.integers(1, 9), slots=st.integers(1, 7), world=st.integers(1, 5),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_every_row_once_an_epoch(n: int, size: int, slots: int, world: int, seed: int) -> None:
    """Whatever the number of processes, a step has the same micro-batches, and all take as many passes in it."""
    alone = EpochBatches(n, size, seed, slots=slots)
    ranks = [EpochBatches(n, size, seed, slots=slots, rank=rank, world=world) for rank in range(world)]
    for epoch in (0, 3):
        for one in (alone, *ranks):
            one.set_epoch(epoch)
        whole, shared = list(alone), [list(one) for one in ranks]
        assert sorted(row for batch in whole for row in batch) == list(range(n)) and all(whole)
        assert [len(one) for one in shared] == [len(one) for one in ranks] and len({len(one) for one in shared}) == 1
        assert len(alone) == len(whole) == alone.micro_batches
        rounds = ranks[0].rounds
        for step in range(alone.steps):
            taken = [one[step * rounds : (step + 1) * rounds] for one in shared]
            dealt = [batch for turn in zip(*taken, strict=True) for batch in turn]
            assert (
                [batch for batch in dealt if batch] == whole[step * slots : (step + 1) * slots] == alone.of_step(step)
            )
        assert -(-len(shared[0]) // rounds) == alone.steps, "the loop of the Trainer comes to the same steps"
        assert shared == [list(one) for one in ranks], "the epoch alone decides"


@MANY
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30), limit=st.integers(20, 50))
def test_packs_and_batches_by_length_hold_each_row_once(lengths: list[int], limit: int) -> None:
    packs = pack(np.array(lengths), limit)
    assert sorted(row for rows in packs for row in rows) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in rows) <= limit for rows in packs)
    batches = by_length(np.array(lengths), limit)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(max(lengths[i] for i in batch) * len(batch) <= limit for batch in batches)


@FEW
@given(sizes=st.lists(st.integers(2, 12), min_size=1, max_size=6), pad=st.integers(0, 3))
def test_layouts_hold_the_same_labels(sizes: list[int], pad: int) -> None:
    data = view(split_of(sizes), 12, "truncate")
    items = [data[i] for i in range(len(data))]
    wanted = sorted(label for item in items for label in item["labels"].tolist() if label >= 0)
    rows = [[items[i] for i in row] for row in pack(np.array(sizes), 24)]
    for batch in (flat(items), padded(items, pad), packed(rows, 24, pad)):
        assert sorted(label for label in batch["labels"].flatten().tolist() if label >= 0) == wanted  # type: ignore[union-attr]
        assert batch["num_tokens"] == sum(sizes)
