"""Which accelerations apply to a model: decided once, for the engine, for `hone.speed_up` and for `hone plan`.

Each changes how a step is computed, never what. Each is compared with the plain computation on real tokens first
(`equivalence.py`) and left out where it differs; the notes say what was done, what was left out, and why.

    allocator.py             freed memory stays with the process                  CPU, glibc
    gelu.py                  GELU as one operation instead of eight               GPT-2's tanh form
    varlen_attention.py      flat and packed rows, attended example by example    CPU, PyTorch's attention
    `logits_to_keep`         logits of the scored positions only                  most causal models
    fused_cross_entropy.py   output layer and loss as one operation               plain linear output layers
    frozen_cache.py          frozen blocks run once for each token                flat rows, several epochs

>>> attached = attach(model, data.train, options)                                 # doctest: +SKIP
>>> with attached.forward(inputs) as given:                                       # doctest: +SKIP
...     loss = attached.loss(model(**given).logits, labels, num_items)
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hone.accelerations.allocator import allocator_can_keep, keep_freed_memory
from hone.accelerations.equivalence import (
    TOLERANCE,
    Examples,
    has_numbers,
    heeds_logits_to_keep,
    keeps_examples_apart,
    loss_difference,
)
from hone.accelerations.frozen_cache import (
    FrozenCache,
    Numbered,
    Place,
    cache_bytes,
    cache_place,
    frozen_bottom,
    no_room,
    numbered,
)
from hone.accelerations.fused_cross_entropy import FusedCrossEntropy, logits_changed
from hone.accelerations.gelu import fuse_gelu
from hone.accelerations.varlen_attention import use_varlen_attention
from hone.config.sections.speed import SpeedKeys
from hone.data.batches import PackedDataset, cut, filled, flat, packed, padded
from hone.loss import Loss, causal_lm_loss, scored_positions
from hone.processes import from_primary, on_one_machine

Batch = dict[str, Any]
Collate = Callable[[Sequence[Any]], Batch]

NOT_COMPARED = "not compared with the plain computation here: the model has no weights"


@dataclass(frozen=True)
class Options:
    """What is wanted (`speed`, a switch for each), and what the run is, as far as that decides.

    device: "cpu", "cuda" or "mps", where the model will train. max_length: tokens of the longest example.
    batching: `data.batching`. pad_token_id: of padded and packed rows.
    autocast: type of the products under mixed precision, None without. sharded: FSDP.
    cache_folder: of the frozen cache, None for none. several_epochs: whether it would be read again.
    """

    speed: SpeedKeys
    device: str
    max_length: int
    batching: str = "flat"
    pad_token_id: int = 0
    autocast: torch.dtype | None = None
    sharded: bool = False
    cache_folder: Path | None = None
    several_epochs: bool = False


@dataclass(frozen=True)
class Attached:
    """How the training step of a model will be computed.

    dataset, collate: what the data loader reads, and how it lays a batch out (input_ids, labels, num_tokens, …).
    layout: flat, packed or padded.
    loss: of what the model returns within `forward`, its labels, and the supervised items of the whole step.
    scored_only: logits only where a label follows. fused, cache, micro_batch_tokens: None where there is none.
    notes: what was done, what was left out and why, in words.
    """

    dataset: Any
    collate: Collate
    loss: Loss
    layout: str = "padded"
    scored_only: bool = False
    fused: FusedCrossEntropy | None = None
    cache: FrozenCache | None = None
    micro_batch_tokens: int | None = None
    notes: list[str] = field(default_factory=list)

    def pieces(self, batch: Batch) -> list[Batch]:
        """What of a micro-batch goes forward and backward at once."""
        return [batch] if self.micro_batch_tokens is None else cut(batch, self.micro_batch_tokens)

    def n_tokens(self, rows: Sequence[int]) -> int:
        """Tokens of the micro-batch of these rows of the data set; where rows are padded, up to the longest of them."""
        lengths = self.dataset.lengths[rows]
        return int(lengths.sum() if self.layout == "flat" else lengths.max() * len(rows))

    @contextlib.contextmanager
    def forward(self, inputs: Batch) -> Iterator[Batch]:
        """Within it the model is called with what is given; it returns logits, or the hidden states for `loss`."""
        given = dict(inputs)
        rows = given.pop("cache_rows", None)
        if self.scored_only:
            given["logits_to_keep"] = scored_positions(given["labels"])
        with contextlib.ExitStack() as stack:
            if self.fused:
                stack.enter_context(self.fused.head_skipped())
            if self.cache:
                stack.enter_context(self.cache.at(rows))
            yield given


def attach(
    model: PreTrainedModel,
    dataset: Examples,
    options: Options,
    *,
    loss: Loss = causal_lm_loss,
    collate: Collate | None = None,
) -> Attached:
    """Choose what applies to a model and change it where that is needed; its weights stay as they are.

    Args:
        dataset: the examples as they are trained; a few of them serve for the comparisons.
        loss: the plain one. collate: of tasks whose examples are not rows of tokens; only what holds for any model
            applies to them.
    """
    speed = options.speed
    notes: list[str] = []
    if speed.keep_freed_memory and options.device == "cpu" and allocator_can_keep():
        if has_numbers(model):  # it changes the process, and this model takes no step
            keep_freed_memory()
        notes.append("freed memory kept for the next step")
    if speed.fused_gelu and (n := fuse_gelu(model)):
        notes.append(f"{n} fused GELUs")
    if collate is not None:
        if speed.micro_batch_tokens is not None:
            notes.append("micro-batches are not cut: only rows of tokens can be")
        return Attached(dataset, collate, loss, notes=notes)
    layout = _layout(model, dataset, options, notes)
    rows, collate, cache = _rows(model, dataset, layout, options, notes)
    scored = speed.scored_rows_only and heeds_logits_to_keep(model, dataset)
    if scored:
        notes.append("logits of scored positions only")
    elif speed.scored_rows_only:
        notes.append(f"logits of all positions: {type(model).__name__} cannot compute chosen ones only")
    if speed.fused_head and not scored:
        notes.append("no fused cross-entropy: it takes the scored positions only")
    fused = _fused_cross_entropy(model, dataset, options, notes) if scored else None
    if speed.micro_batch_tokens is not None:
        notes.append(f"micro-batches cut into pieces of {speed.micro_batch_tokens:,} tokens")
    if not has_numbers(model):
        notes.append(NOT_COMPARED)
    loss = fused.loss if fused else loss
    return Attached(rows, collate, loss, layout, scored, fused, cache, speed.micro_batch_tokens, notes)


def _layout(model: PreTrainedModel, dataset: Examples, options: Options, notes: list[str]) -> str:
    """The layout of `batching`; flat and packed step aside where the model would mix the examples of a row."""
    if options.batching not in ("flat", "packed"):
        return "padded"
    if _keeps_apart(model, dataset, options, notes):
        return options.batching
    why = f"{type(model).__name__} lets examples of one row see each other"
    notes.append(f"batching padded instead of {options.batching}: {why}")
    return "padded"


def _rows(
    model: PreTrainedModel, dataset: Any, layout: str, options: Options, notes: list[str]
) -> tuple[Any, Collate, FrozenCache | None]:
    """What the data loader reads of a layout, how it is collated, and the frozen cache of flat rows."""
    pad, length = options.pad_token_id, options.max_length
    if layout == "packed":
        collate = functools.partial(packed, max_length=length, pad_token_id=pad)
        return PackedDataset(dataset, length), collate, None
    if layout == "padded":
        return dataset, functools.partial(padded, pad_token_id=pad), None
    in_a_row = functools.partial(flat, size=filled)
    cache = _frozen_cache(model, dataset, options, notes)
    if cache is None:
        return dataset, in_a_row, None
    return Numbered(dataset), functools.partial(numbered, collate=in_a_row), cache


def _keeps_apart(model: PreTrainedModel, dataset: Examples, options: Options, notes: list[str]) -> bool:
    """Are examples of one row kept apart: by variable-length attention, or else by transformers' mask?"""
    plain = model.config._attn_implementation
    if options.speed.segment_attention and use_varlen_attention(model, options.max_length, options.device):
        if keeps_examples_apart(model, dataset):
            notes.append("variable-length attention")
            return True
        model.set_attn_implementation(plain)
    return keeps_examples_apart(model, dataset)


def _frozen_cache(model: PreTrainedModel, dataset: Any, options: Options, notes: list[str]) -> FrozenCache | None:
    """The cache of a frozen bottom; None where there is none, no use for it, no room, or where it differs."""
    limit, folder, dtype = options.speed.prefix_cache_gb * 1e9, options.cache_folder, options.autocast or model.dtype
    bottom = frozen_bottom(model)
    if not limit or folder is None or bottom is None:
        return None
    if options.autocast is torch.float16:
        notes.append("no frozen cache: it is not offered with fp16")
        return None
    if options.sharded or not on_one_machine():
        why = "blocks are in shards" if options.sharded else "the processes are on several machines"
        notes.append(f"no frozen cache: {why}")
        return None
    place = _agreed_place(model, dataset, folder, dtype) if has_numbers(model) else None
    reason, cache = None, None
    if place is None or not place.is_published:
        reason = from_primary(lambda: no_room(cache_bytes(model, dataset, dtype), folder, limit))
        reason = reason if options.several_epochs else "each token is seen once"
    if place is not None and reason is None:
        try:
            cache = FrozenCache(model, dataset, place, dtype)
            reason = _difference(cache, model, dataset)
        except OSError as error:  # the disk is full, or nothing may be written there
            reason = f"{folder}: {error.strerror or error}"
        if reason is not None and cache is not None:
            cache.close()
    if reason is not None:
        notes.append(f"no frozen cache: {reason}")
        return None
    notes.append(f"frozen cache: the {bottom[1]} frozen blocks run once for each token")
    return cache


def _agreed_place(model: PreTrainedModel, dataset: Any, folder: Path, dtype: torch.dtype) -> Place:
    """Where the rows lie, as the primary finds it: another run may publish them while others look."""

    def look() -> list[Any]:
        place = cache_place(model, dataset, folder, dtype)
        return [str(place.folder), place.is_published, place.about]

    path, is_published, about = from_primary(look)
    return Place(Path(path), is_published, about)


def _difference(cache: FrozenCache, model: PreTrainedModel, dataset: Any) -> str | None:
    """Why the cache does not give what the model does; rows that several processes share are tried by one of them."""

    def compare() -> str | None:
        return cache.difference(model, dataset, TOLERANCE[cache.dtype])

    return compare() if cache.place.is_published else from_primary(compare)


def _fused_cross_entropy(
    model: PreTrainedModel, dataset: Examples, options: Options, notes: list[str]
) -> FusedCrossEntropy | None:
    """The fused loss where it applies and agrees with the plain one; None otherwise, with the reason in the notes."""
    if not options.speed.fused_head:
        return None
    fused, reason = FusedCrossEntropy.of(model), None
    if options.autocast is torch.float16:
        reason = "the scaling of fp16 comes after its gradients"
    elif options.sharded:
        reason = "a shard is not the whole output layer"
    elif fused is None:
        reason = "the output layer is not a plain linear one"
    elif key := logits_changed(model):
        reason = f"the logits are changed after the product ({key})"
    else:
        reason = loss_difference(model, fused, dataset)
    if fused is None or reason:
        notes.append(f"no fused cross-entropy: {reason}")
        return None
    if options.autocast is not None:
        fused.dtype = options.autocast  # accelerate's autocast ends with the model, and makes its outputs float32
    notes.append("fused cross-entropy")
    return fused
