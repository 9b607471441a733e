"""Rows decoded by `fast_step`: each in a slot of its own, so that any of them may come or go at any step.

Keys and values have room made beforehand, within a limit of memory. What a slot holds stays after its row has left: a
prompt that begins as one read before goes on from there. Long prompts are read in stretches, so that rows that grow do
not wait for them.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hone.inference.fast_step import Plan, Stretch, scores
from hone.inference.lookup import Lookup
from hone.inference.weights import Weights

if TYPE_CHECKING:
    from hone.inference.engine import Row

AT_ONCE = 1024  # tokens of prompts that are read in a step …
BESIDE_OTHERS = 256  # … and where rows grow that wait meanwhile
REMEMBERED = 8  # slots whose rows have left are used again only when there are more of them
WORTH_COPYING = 8  # tokens in common with a row that is still there
ROUNDED = 64  # the room of a slot is a multiple of so many tokens


@dataclass(eq=False)
class _Slot:
    """ids: tokens whose keys and values it holds. used: when its row left. lookup: what guesses the row's tokens."""

    row: "Row | None" = None
    ids: list[int] = field(default_factory=list)
    used: int = 0
    lookup: Lookup = field(default_factory=Lookup)


class Slots:
    """The rows of a model: those that grow in the first slots, those whose prompts are read in the next."""

    def __init__(self, weights: Weights, cache_bytes: int, max_rows: int, *, lookup: bool = True) -> None:
        self._weights, self._cache_bytes, self._max_rows = weights, cache_bytes, max_rows
        self._lookup = lookup and weights.kernel is not None
        self._slots: list[_Slot] = []
        self._kept = self._made(0, 0)
        self._n_rows = self._n_grown = self._clock = 0

    @property
    def n_growing(self) -> int:
        return sum(slot.row is not None and not slot.row.gone for slot in self._slots[: self._n_rows])

    def enter(self, waiting: "deque[Row]") -> None:
        """Take rows from the front of `waiting` while there is room."""
        self._let_go()
        while waiting and (waiting[0].gone or self._place(waiting[0], waiting)):
            waiting.popleft()

    def scores(self) -> "Iterator[tuple[list[Row], Tensor]]":
        """Read prompts, feed each row that grows its last token: rows, and the scores of their next tokens (B, V).

        A row that grows alone may come several times: with what was guessed of it and has been drawn meanwhile.
        """
        if not self._n_rows:
            return
        if guessed := self._guessed():
            yield from self._checked(guessed)
            return
        plan, new = self._plan()
        found = scores(self._weights, self._kept, plan)
        for slot, ids in zip(self._slots, new):
            slot.ids.extend(ids)
        rows: list[Row] = []
        for place in range(self._n_rows):
            row = self._slots[place].row
            assert row is not None
            if place >= self._n_grown:
                if len(self._slots[place].ids) < len(row.request.prompt):
                    continue
                self._swap(place, self._n_grown)
                self._n_grown += 1
            rows.append(row)
        if rows:
            yield rows, found

    def _guessed(self) -> list[int]:
        """What may follow the only row's last token, where reading it as well costs little."""
        if not self._lookup or self._n_rows != 1 or self._n_grown != 1:
            return []
        row = self._slots[0].row
        assert row is not None
        left = row.request.answer.room - len(row.tokens) - 1
        return self._slots[0].lookup.guess(row.request.prompt, row.tokens)[: max(0, left)]

    def _checked(self, guessed: list[int]) -> "Iterator[tuple[list[Row], Tensor]]":
        """The only row's last token and guesses in one pass; scores are given as far as guesses were right."""
        slot, past = self._slots[0], len(self._slots[0].ids)
        row = slot.row
        assert row is not None
        ids = [row.tokens[-1], *guessed]
        n, right = len(ids), 0
        plan = Plan(ids, list(range(past, past + n)), [0] * n, [], [Stretch(0, 0, n, past)], list(range(n)))
        found = scores(self._weights, self._kept, plan)
        for i, token in enumerate(ids):
            if i and (row.gone or row.tokens[-1] != token):
                break
            slot.ids.append(token)
            right = i
            yield [row], found[i : i + 1]
        slot.lookup.judge(len(guessed), right)

    def _plan(self) -> tuple[Plan, list[list[int]]]:
        """The next pass, and the tokens that each slot takes in it."""
        plan = Plan([], [], [], [], [], [])
        new: list[list[int]] = []
        budget = BESIDE_OTHERS if self._n_grown else AT_ONCE
        for place, slot in enumerate(self._slots[: self._n_rows]):
            assert slot.row is not None
            past, first = len(slot.ids), len(plan.ids)
            if place < self._n_grown:
                ids = [slot.row.tokens[-1]]
                plan.lengths.append(past + 1)
            else:
                ids = list(slot.row.request.prompt[past : past + budget])
                budget -= len(ids)
                if ids:
                    plan.stretches.append(Stretch(place, first, first + len(ids), past))
            plan.ids.extend(ids)
            plan.positions.extend(range(past, past + len(ids)))
            plan.slots.extend([place] * len(ids))
            if ids and past + len(ids) >= len(slot.row.request.prompt):
                plan.wanted.append(len(plan.ids) - 1)
            new.append(ids)
        return plan, new

    # ---- which row is where ------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        for place in reversed(range(self._n_rows)):
            row = self._slots[place].row
            if row is not None and row.gone:
                if place < self._n_grown:
                    self._n_grown -= 1
                    self._swap(place, self._n_grown)
                    place = self._n_grown
                self._n_rows -= 1
                self._swap(place, self._n_rows)
                self._clock += 1
                self._slots[self._n_rows].row, self._slots[self._n_rows].used = None, self._clock

    def _place(self, row: "Row", waiting: "deque[Row]") -> bool:
        """Give a row a slot; False while there is none, or while another reads what both begin with."""
        if row.length > self._kept.shape[2] and not self._make_room(row, waiting):
            return False
        if self._n_rows == len(self._slots):
            return False
        prompt = row.request.prompt
        shared = [common(slot.ids, prompt) for slot in self._slots]
        best = max(range(len(shared)), key=shared.__getitem__)
        for slot in self._slots[self._n_grown : self._n_rows]:
            if slot.row is not None and common(slot.row.request.prompt, prompt) >= shared[best] + WORTH_COPYING:
                return False
        if shared[best] and best >= self._n_rows:
            chosen = best
        else:
            chosen = self._least_needed()
        n = shared[best] if chosen == best or shared[best] >= WORTH_COPYING else 0
        if n and chosen != best:
            self._kept[:, chosen, :n] = self._kept[:, best, :n]
        ids = list(prompt[:n])
        self._slots[chosen].ids = ids
        self._swap(chosen, self._n_rows)
        self._slots[self._n_rows].row, self._slots[self._n_rows].lookup = row, Lookup()
        self._n_rows += 1
        return True

    def _least_needed(self) -> int:
        """The slot without a row that is used next: the one that was left first, once enough are remembered."""
        idle = range(self._n_rows, len(self._slots))
        fresh = [place for place in idle if not self._slots[place].ids]
        if fresh and len(idle) - len(fresh) < REMEMBERED:
            return fresh[0]
        return min(idle, key=lambda place: self._slots[place].used or self._clock + 1)

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        kept = self._kept
        n, m = len(self._slots[one].ids), len(self._slots[other].ids)
        saved = kept[:, one, :n].clone() if n and m else kept[:, one, :n]
        if m:
            kept[:, one, :m] = kept[:, other, :m]
        if n:
            kept[:, other, :n] = saved
        self._slots[one], self._slots[other] = self._slots[other], self._slots[one]

    def _make_room(self, row: "Row", waiting: "deque[Row]") -> bool:
        """Longer slots, for this row and if they fit for all that wait; False while too many are there."""
        w = self._weights
        token = 2 * len(w.layers) * w.n_kept * w.head_dim * w.dtype.itemsize
        enough = self._cache_bytes // (token * self._max_rows)
        length = max(row.length, min(enough, max(other.length for other in waiting)))
        length = min(-(-length // ROUNDED) * ROUNDED, max(w.window, length))
        n_slots = max(1, min(self._max_rows, self._cache_bytes // (token * length)))
        if n_slots < self._n_rows:
            return False
        kept, both = self._made(n_slots, length), min(n_slots, len(self._slots))
        for place in range(both):
            n = min(len(self._slots[place].ids), length)
            kept[:, place, :n] = self._kept[:, place, :n]
        self._kept, self._slots = kept, self._slots[:both] + [_Slot() for _ in range(n_slots - both)]
        return True

    def _made(self, n_slots: int, length: int) -> Tensor:
        """Room for keys and values: (layers, slots, length, 2, heads, head_dim)."""
        w = self._weights
        shape = (len(w.layers), n_slots, length, 2, w.n_kept, w.head_dim)
        if w.device.type != "cpu" or not n_slots:
            return torch.zeros(shape, dtype=w.dtype, device=w.device)  # what is masked must still be numbers
        # numpy's zeros take no memory, and no time, before they are written to
        return torch.from_numpy(np.zeros(prod(shape) * w.dtype.itemsize, dtype=np.uint8)).view(w.dtype).view(shape)


def common(read: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens a prompt has in common with what was read; one at least is left to read.

    >>> common([1, 2, 3, 4], [1, 2, 5]), common([1, 2, 3], [1, 2, 3])
    (2, 2)
    """
    low, high = 0, min(len(read), len(prompt) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        if list(read[low:middle]) == list(prompt[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
