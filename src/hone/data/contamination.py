"""Which evaluation items occur in the training rows, word for word or nearly: looked for before anything is trained.

Three kinds, the worst first. exact: the same words and signs, in any layout. same code: the same program under other
variable names, comments and layout. near: one training row holds at least half of the item's 13-grams, in one of the
two forms (`ngrams.py`). An item of fewer than 13 tokens is only looked for as a whole. N-grams that more than ten rows
and more than a hundredth of them hold are nobody's own (a template, a licence) and do not count.

Only the items are indexed (about 50 bytes a token, in each form); rows stream by, so memory does not grow with them.

>>> found = find_contamination(["def f(x):\\n    return x"], [["a = 1", "def f(x): return x"]], n_rows=2)
>>> found.pairs
[Pair(item=0, row=1, kind='exact', share=0.0, code_share=0.0)]
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from hone.data.dataset import Dataset
from hone.data.ngrams import Form, N, code_form, plain_form
from hone.data.store import Split, Store
from hone.errors import HoneError
from hone.results import read, write
from hone.results.contamination import ContaminatedItem, Contamination, leaked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEAR = 0.5  # of an item's n-grams, in one row
CODE_GRAMS = 24  # an item needs so many n-grams in the code form: shorter functions are alike by nature
COMMON_ROWS, COMMON_SHARE = 10, 0.01
KINDS = ("exact", "same code", "near")
SAME = {"exact": "word for word", "same code": "the same code"}
FORMS = {"plain": plain_form, "code": code_form}
PIECE_TOKENS = 1 << 18  # decoded at once: bounds memory; a longer document is looked at in pieces
EXPANDED = 1 << 21  # (item, row) pairs counted at once
LOOKED_THROUGH = 100_000_000  # training tokens, some minutes; more are looked through only where rows are to be dropped
DROPPED = "examples dropped: their row holds a validation item"
LISTED = 1000  # items in contamination.json
PLACED = 5  # of these, the worst: their rows are looked for in the files
SHOWN = 2  # of these, in the log
EXCERPT, BEGINNING = 80, 32  # characters, in contamination.json and in the log
FORMAT = 3  # of the file in the token store: raise when anything here would find other pairs

# (side, texts) -> file and line of the row that each was formatted from, where it is known
Places = Callable[[Literal["train", "validation"], Sequence[str]], list[str | None]]
# (texts, the row of each, whether it is the whole row)
Batches = Iterator[tuple[list[str], np.ndarray, np.ndarray]]


class Pair(NamedTuple):
    """An item and a row that holds it. share, code_share: of the item's n-grams, in the plain and the code form."""

    item: int
    row: int
    kind: str
    share: float
    code_share: float


@dataclass(frozen=True)
class Matches:
    """All pairs, worst first. n_short: items of fewer than N tokens."""

    n_items: int
    n_rows: int
    n_short: int
    pairs: list[Pair]

    def worst(self) -> list[Pair]:
        """The worst pair of each item that has one."""
        found: dict[int, Pair] = {}
        for pair in self.pairs:
            found.setdefault(pair.item, pair)
        return list(found.values())


def find_contamination(items: Sequence[str], rows: Iterable[Sequence[str]], n_rows: int) -> Matches:
    """Pairs of evaluation items and training rows that are the same, or nearly.

    Args:
        rows: batches of the texts of consecutive rows.
        n_rows: how many rows there are in all.
    """
    return _find(items, _numbered(rows), n_rows)


def _numbered(batches: Iterable[Sequence[str]]) -> Batches:
    first = 0
    for batch in batches:
        yield list(batch), np.arange(first, first + len(batch)), np.ones(len(batch), bool)
        first += len(batch)


def _find(items: Sequence[str], batches: Batches, n_rows: int) -> Matches:
    """The same where rows may come in parts."""
    searches = searches_of(items)
    for texts, numbers, whole in batches:
        for name, form in FORMS.items():
            searches[name].look_at(form(texts), numbers, whole)
    return matches_of(searches, len(items), n_rows)


def searches_of(items: Sequence[str], code: Callable[[str], int] = hash) -> "dict[str, Search]":
    """Items indexed in each form. code: the number of a token."""
    return {name: Search.of(form(items, code), least=N if name == "code" else 1) for name, form in FORMS.items()}


def matches_of(searches: "dict[str, Search]", n_items: int, n_rows: int) -> Matches:
    """What searches that have looked at all rows found."""
    shares = {name: search.shares(n_rows, CODE_GRAMS if name == "code" else 1) for name, search in searches.items()}
    exact, same_code = (searches[name].whole() for name in FORMS)
    pairs = [
        Pair(item, row, kind, shares["plain"].get((item, row), 0.0), shares["code"].get((item, row), 0.0))
        for kind, found in zip(KINDS, (exact, same_code - exact, shares["plain"].keys() | shares["code"].keys()))
        for item, row in found
        if kind != "near" or (item, row) not in exact | same_code
    ]
    pairs.sort(key=lambda p: (KINDS.index(p.kind), -max(p.share, p.code_share), p.item, p.row))
    return Matches(n_items, n_rows, int((searches["plain"].sizes < N).sum()), pairs)


# ---- the search in one form ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postings:
    """keys (K,) uint64, ascending and distinct; the items of key k are items[offsets[k]:offsets[k + 1]]."""

    keys: np.ndarray
    offsets: np.ndarray
    items: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray, items: np.ndarray) -> "Postings":
        order = np.lexsort((items, hashes))
        hashes, items = hashes[order], items[order]
        new = np.ones(len(hashes), bool)  # an item that repeats an n-gram has it once
        new[1:] = (np.diff(items) != 0) | (hashes[1:] != hashes[:-1])
        keys, starts = np.unique(hashes[new], return_index=True)
        return cls(keys, np.append(starts, new.sum()), items[new])

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the keys (m,) that are among `hashes`, and where in `hashes` they are (m,)."""
        if not len(self.keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        places = np.flatnonzero(self.keys[at] == hashes)
        return at[places], places

    def expand(self, keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(item, row) for every item of each found key: two arrays (p,)."""
        sizes = self.sizes()[keys]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.items[np.repeat(self.offsets[keys], sizes) + within], np.repeat(rows, sizes)

    def sizes(self) -> np.ndarray:
        """(K,) items of each key."""
        return np.diff(self.offsets)


class Search:
    """Items of one form, indexed; `look_at` collects what rows share with them."""

    def __init__(self, sizes: np.ndarray, grams: Postings, digests: Postings) -> None:
        self.sizes, self.grams, self.digests = sizes, grams, digests
        self.gram_hits: list[tuple[np.ndarray, np.ndarray]] = []  # (key, row)
        self.digest_hits: list[tuple[np.ndarray, np.ndarray]] = []

    @classmethod
    def of(cls, form: Form, least: int) -> "Search":
        """least: tokens an item needs in order to be looked for as a whole."""
        sizes = form.sizes()
        long_enough = np.flatnonzero(sizes >= least)
        return cls(sizes, Postings.of(*form.ngrams()), Postings.of(form.digests()[long_enough], long_enough))

    def look_at(self, form: Form, rows: np.ndarray, whole: np.ndarray) -> None:
        """rows: (texts,) the row of each text, ascending. whole: (texts,) bool, False where a text is part of a row."""
        hashes, owners = form.ngrams()
        keys, places = self.grams.find(hashes)
        hits = np.unique(np.stack([rows[owners[places]], keys]), axis=1)
        self.gram_hits.append((hits[1], hits[0]))
        entire = np.flatnonzero(whole & (form.sizes() > 0))
        keys, places = self.digests.find(form.digests()[entire])
        self.digest_hits.append((keys, rows[entire[places]]))

    def whole(self) -> set[tuple[int, int]]:
        """(item, row) of equal texts."""
        keys, rows = _joined(self.digest_hits)
        items, rows = self.digests.expand(keys, rows)
        return set(zip(items.tolist(), rows.tolist()))

    def shares(self, n_rows: int, least: int) -> dict[tuple[int, int], float]:
        """(item, row) -> share of the item's n-grams in that row, where it is at least NEAR.

        Args:
            least: n-grams an item must have of its own.
        """
        keys, rows = _joined(self.gram_hits)
        rarely = np.bincount(keys, minlength=len(self.grams.keys)) <= max(COMMON_ROWS, COMMON_SHARE * n_rows)
        keys, rows = keys[rarely[keys]], rows[rarely[keys]]
        own = np.bincount(self.grams.items[np.repeat(rarely, self.grams.sizes())], minlength=len(self.sizes))
        found: dict[tuple[int, int], float] = {}
        for block in _row_blocks(rows, self.grams.sizes()[keys]):
            items, holders = self.grams.expand(keys[block], rows[block])
            pairs, counts = np.unique(items * n_rows + holders, return_counts=True)
            items, holders = pairs // n_rows, pairs % n_rows
            enough = (counts >= NEAR * own[items]) & (own[items] >= least)
            shares = counts[enough] / own[items[enough]]
            found |= zip(zip(items[enough].tolist(), holders[enough].tolist()), shares.tolist())
        return found


def _joined(hits: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(keys, rows) of all batches, by row, none twice (a row may come in pieces)."""
    if not hits:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    keys, rows = (np.concatenate(column) for column in zip(*hits))
    order = np.lexsort((keys, rows))
    keys, rows = keys[order], rows[order]
    new = np.ones(len(keys), bool)
    new[1:] = (np.diff(keys) != 0) | (np.diff(rows) != 0)
    return keys[new], rows[new]


def _row_blocks(rows: np.ndarray, sizes: np.ndarray) -> Iterator[slice]:
    """Slices of whole rows, of about EXPANDED pairs each."""
    borders = np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows))
    before = np.append(0, np.cumsum(sizes))[borders]
    first = 0
    while first < len(borders) - 1:
        last = max(first + 1, int(np.searchsorted(before, before[first] + EXPANDED, side="right")) - 1)
        yield slice(borders[first], borders[last])
        first = last


# ---- the contamination of prepared data ---------------------------------------------------------------------------


def contamination_of(
    store: Store,
    train: Dataset,
    validation: Dataset,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    cache: Path,
    places: Places | None = None,
    however_long: bool = False,
) -> Contamination:
    """What eval/contamination.json says of two datasets; found once, then read from the token store.

    An item is a validation document, or a piece of the only one; a row is a training document, whole, wherever rows
    are cut. Both are numbered as in the store.

    Args:
        cache: where the result is kept if the store has no folder of its own.
        places: finds the rows of texts in the files.
    """
    began = time.perf_counter()
    rows = np.unique(train.documents)
    n_tokens = int(np.diff(train.split.starts)[rows].sum())
    if n_tokens > LOOKED_THROUGH and not however_long:
        return Contamination(not_searched=f"{n_tokens:,} training tokens are more than {LOOKED_THROUGH:,}")
    pieces = len(np.unique(validation.documents)) == 1 and len(validation) > 1
    spans = _spans(validation, pieces)
    identity = [FORMAT, N, NEAR, store.meta["sources"], tokenizer.name_or_path, rows.tobytes(), spans.tobytes()]
    name = f"contamination-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.json"
    path = (store.folder or cache) / name
    with suppress(HoneError):  # damaged: found anew
        if known := read(Contamination, path):
            return known
    items, numbers = [], []
    for texts, documents, _ in _texts(validation.split, spans, tokenizer):
        items += texts
        numbers += documents.tolist()
    found = _find(items, _texts(train.split, _spans(train, False), tokenizer), int(rows.max(initial=-1)) + 1)
    worst = found.worst()
    result = Contamination(
        item="piece" if pieces else "document",
        n=N,
        near=NEAR,
        n_items=found.n_items,
        n_rows=len(rows),
        n_short=found.n_short,
        n_contaminated=len(worst),
        by_kind={kind: sum(pair.kind == kind for pair in worst) for kind in KINDS},
        items=_placed(
            [_listed(pair, numbers, items, train.split, tokenizer) for pair in worst[:LISTED]],
            [items[pair.item] for pair in worst[:PLACED]],
            [_row_text(pair.row, train.split, tokenizer, PIECE_TOKENS) for pair in worst[:PLACED]],
            places,
        ),
        rows=sorted({pair.row for pair in found.pairs}),
        seconds=round(time.perf_counter() - began, 2),
    )
    with suppress(HoneError, OSError):  # a full or read-only cache: the result is here all the same
        if store.folder is None:  # a store that was removed meanwhile does not come back as a folder without tokens
            cache.mkdir(parents=True, exist_ok=True)
        write(path, result)
    return result


def _listed(
    pair: Pair, numbers: list[int], items: list[str], split: Split, tokenizer: "PreTrainedTokenizerBase"
) -> ContaminatedItem:
    """A pair with the beginnings of its texts; numbers: of the items in their split."""
    row_text = _row_text(pair.row, split, tokenizer, EXCERPT)[:EXCERPT]
    text = items[pair.item][:EXCERPT]
    return ContaminatedItem(**{**pair._asdict(), "item": numbers[pair.item]}, text=text, row_text=row_text)


def _row_text(row: int, split: Split, tokenizer: "PreTrainedTokenizerBase", most: int) -> str:
    """A row's text from its tokens, of which at most `most` are decoded."""
    begin = int(split.starts[row])
    end = min(begin + most, int(split.starts[row + 1]))
    return _decoded(tokenizer, [split.tokens[begin:end].tolist()])[0]


def _placed(
    listed: list[ContaminatedItem], texts: list[str], row_texts: list[str], places: Places | None
) -> list[ContaminatedItem]:
    """The same, the first with file and line of item and row."""
    if not texts or places is None:
        return listed
    found = zip(listed, places("validation", texts), places("train", row_texts))
    placed = [one.model_copy(update={"where": where or "", "row_where": row or ""}) for one, where, row in found]
    return placed + listed[len(placed) :]


def without_contaminated_rows(train: Dataset, found: Contamination) -> Dataset:
    """The training data without the rows that hold an item, and how many examples that cost among what is left out."""
    keep = ~np.isin(train.documents, found.rows)
    return train.select(keep, DROPPED)


def describe(found: Contamination, dropped: bool = False) -> list[str]:
    """How many items by kind, or what is left of them if their rows were dropped; and the worst two, a line each."""
    if found.not_searched is not None:
        return [f"contamination: not looked for: {found.not_searched} (overlap: drop looks through any number)"]
    items, rows = f"{found.n_items:,} validation {found.item}s", f"{found.n_rows:,} training rows"
    if not found.n_contaminated:
        lines = [f"contamination: 0 of {found.n_items:,} validation items are in the {rows}"]
    elif dropped:
        what = f"{found.n_contaminated:,} of {items}"
        lines = [
            f"contamination: {len(found.rows):,} rows that held or nearly matched {what} are dropped; none is left"
        ]
    else:
        lines = [f"contamination: of {items}, {leaked(found)}"]
    lines += [f"contamination: {_told(one, found.item)}" for one in found.items[:SHOWN]]
    if found.n_short:
        few = f"{found.n_short:,} {'item has' if found.n_short == 1 else 'items have'} fewer than {N} words"
        lines.append(f"contamination: {few}: only looked for as a whole")
    return lines


def _told(one: ContaminatedItem, kind: str) -> str:
    """An item, its row, how they are alike, and how it begins."""
    item, row = one.where or f"validation {kind} {one.item}", one.row_where or f"training row {one.row}"
    near = one.kind == "near"
    how = f"{max(one.share, one.code_share):.0%} of its {N}-word runs" if near else SAME[one.kind]
    return f"{item} {'nearly matches' if near else 'is'} {row} ({how}): {one.text[:BEGINNING]!r}"


def row_texts(dataset: Dataset, tokenizer: "PreTrainedTokenizerBase") -> Iterator[list[str]]:
    """Batches of the texts that a dataset's examples are cut from, whole; a very long one in pieces."""
    return (texts for texts, _, _ in _texts(dataset.split, _spans(dataset, False), tokenizer))


def _spans(dataset: Dataset, pieces: bool) -> np.ndarray:
    """(n, 3) int64: number, start and end of each text in the tokens of its split."""
    if pieces:
        return np.stack([np.arange(len(dataset)), dataset.starts, dataset.starts + dataset.lengths], axis=1)
    documents = np.unique(dataset.documents)
    return np.stack([documents, dataset.split.starts[documents], dataset.split.starts[documents + 1]], axis=1)


def _texts(split: Split, spans: np.ndarray, tokenizer: "PreTrainedTokenizerBase") -> Batches:
    """Batches of texts, their numbers, and whether each is whole."""
    ids: list[list[int]] = []
    numbers, whole, waiting = [], [], 0
    for number, begin, end in spans.tolist():
        for at in range(begin, max(end, begin + 1), PIECE_TOKENS):
            piece = split.tokens[at : min(at + PIECE_TOKENS, end)]
            ids.append(piece.tolist())
            numbers.append(number)
            whole.append(end - begin <= PIECE_TOKENS)
            waiting += len(piece)
            if waiting >= PIECE_TOKENS:
                yield _decoded(tokenizer, ids), np.array(numbers), np.array(whole)
                ids, numbers, whole, waiting = [], [], [], 0
    if ids:
        yield _decoded(tokenizer, ids), np.array(numbers), np.array(whole)


def _decoded(tokenizer: "PreTrainedTokenizerBase", ids: list[list[int]]) -> list[str]:
    texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts
