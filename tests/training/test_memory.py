"""Steps without numbers hold what real steps hold; heaps follow glibc's rules."""

import functools
import itertools
import random
from typing import Any

import pytest
import torch

from hone.accelerations.fused_cross_entropy import FusedCrossEntropy
from hone.data.batches import filled, flat, padded
from hone.loss import causal_lm_loss, scored_positions
from hone.planning.heap import ALIGNED, MAPPED_FROM, Heap
from hone.planning.memory import pass_memory, step_memory, weights_of, without_memory

MB = 1 << 20


def allocated(program: Any) -> int:
    """Most bytes that PyTorch's CPU allocator held at one time during a program, beside what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        program()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def batch(layout: str) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    items: list[Any] = []
    for n in (60, 200, 33, 120):
        ids = torch.randint(0, 90, (n,), generator=rng).numpy()
        labels = ids.copy()
        labels[: n // 3] = -100
        items.append({"input_ids": ids, "labels": labels})
    rows = flat(items, filled) if layout == "flat" else padded(items, pad_token_id=0)
    rows.pop("num_tokens")
    return rows


def forward(model: Any, rows: dict[str, Any], *, head: Any = None) -> torch.Tensor:
    inputs = {key: value for key, value in rows.items() if key != "labels"}
    keep = scored_positions(rows["labels"])
    if head is None:
        return model(**inputs, use_cache=False, logits_to_keep=keep).logits
    with head.head_skipped():
        return model(**inputs, use_cache=False, logits_to_keep=keep).logits


@pytest.mark.parametrize("fused", [True, False], ids=["fused-head", "plain-head"])
@pytest.mark.parametrize("layout", ["flat", "padded"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_step_without_numbers_holds_what_the_real_one_does(
    architecture: str, layout: str, fused: bool, tiny_model: Any
) -> None:
    sizes = {"n_embd": 128} if architecture == "gpt2" else {"hidden_size": 128, "intermediate_size": 512}
    rows = batch(layout)

    def real() -> None:
        model = tiny_model(architecture, **sizes).train()
        head = FusedCrossEntropy.of(model) if fused else None
        loss = functools.partial(head.loss, num_items=1) if head else functools.partial(causal_lm_loss, num_items=1)
        started.append(sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values()))
        loss(forward(model, rows, head=head), rows["labels"]).backward()

    started: list[int] = []
    measured = allocated(real)
    with torch.device("meta"):
        model = tiny_model(architecture, **sizes).train()
    fakes = without_memory(model, "cpu")
    head = FusedCrossEntropy.of(model) if fused else None
    loss = functools.partial(head.loss, num_items=1) if head else functools.partial(causal_lm_loss, num_items=1)
    counted = weights_of(fakes, model)
    assert counted.now == pytest.approx(started[0], rel=0.1)
    step = step_memory(
        counted, model, [rows], functools.partial(forward, head=head), loss, optimizer=0, accumulates=False
    )
    assert step.peak == pytest.approx(measured, rel=0.05)
    assert step.gradients == started[0]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_accumulation_keeps_gradients_and_the_optimizer_stays(tiny_model: Any) -> None:
    peaks = {}
    rows = batch("padded")
    given = sum(tensor.nbytes for tensor in rows.values())
    for accumulates in (False, True):
        with torch.device("meta"):
            model = tiny_model("gpt2").train()
        counted = weights_of(without_memory(model, "cpu"), model)
        weights = counted.now
        loss = functools.partial(causal_lm_loss, num_items=1)
        step = step_memory(counted, model, [rows] * 2, forward, loss, optimizer=1000, accumulates=accumulates)
        assert counted.now == pytest.approx(weights + 1000 + given, abs=200)
        peaks[accumulates] = step.peak
        assert pass_memory(counted, model, functools.partial(forward, rows=rows)) < step.peak
    assert peaks[True] > peaks[False]


# ---- the heap ------------------------------------------------------------------------------------------------------


def test_a_freed_block_is_used_again_and_neighbours_are_joined() -> None:
    heap = Heap(keep=True)
    blocks = [heap.take(MB) for _ in range(8)]
    full = heap.held
    assert full == 8 * (MB + 2 * ALIGNED)
    for block in blocks[2:6]:
        heap.give(block)
    heap.take(4 * MB)
    assert heap.held == full, "four neighbours make room for one block of their size"
    heap.give(blocks[0])
    heap.take(2 * MB)
    assert heap.held == full + 2 * MB + 2 * ALIGNED, "one does not"


def test_large_blocks_go_back_unless_they_are_kept() -> None:
    for keep in (False, True):
        heap = Heap(keep=keep)
        block = heap.take(64 * MB)
        heap.give(block)
        assert heap.held == (64 * MB + 2 * ALIGNED if keep else 0)
        assert heap.peak >= 64 * MB
    heap = Heap(keep=False)
    heap.give(heap.take(MB))
    assert heap.mapped_from > MB > MAPPED_FROM, "blocks of a size that comes back are taken from the heap"
    heap.take(MB // 2)
    assert heap.mapped == 0 and heap.end > 0


@pytest.mark.parametrize("keep", [True, False])
def test_blocks_never_overlap_and_nothing_is_lost(keep: bool) -> None:
    chance, heap = random.Random(0), Heap(keep=keep)
    live: dict[int, int] = {}
    for _ in range(3000):
        if live and chance.random() < 0.5:
            address = chance.choice(list(live))
            del live[address]
            heap.give(address)
        else:
            size = chance.choice([chance.randrange(1, 5000), chance.randrange(1, 40 * MB)])
            live[heap.take(size)] = size
        assert heap.held >= sum(live.values())
        assert heap.peak >= heap.held
    inside = sorted((address, size) for address, size in live.items() if address >= 0)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(inside))
    for address in live:
        heap.give(address)
    assert heap.mapped == 0
    assert len(heap._by_size) <= 1, "all free pieces are one again"
