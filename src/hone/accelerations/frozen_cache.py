"""Frozen cache: the hidden states that enter the first trained block, computed once for each token and kept on disk.

With the bottom of a network frozen, the hidden state that enters the first trained block is a function of the example
alone. In the first epoch it is written to a memory-mapped file; from then on the blocks below are not run. When all is
known the file is published (`publish.py`), under a name that says what it depends on (weights below the cut, tokens,
number format), so that other seeds, ranks and learning rates on the same data find it too.
The idea: AutoFreeze, arXiv 2102.01386; PAC, arXiv 2408.10746.

>>> place = cache_place(model, dataset, folder, torch.bfloat16)                  # doctest: +SKIP
>>> cache = FrozenCache(model, dataset, place, torch.bfloat16)                   # doctest: +SKIP
>>> with cache.at(batch.pop("cache_rows")):                                      # doctest: +SKIP
...     loss = model(**batch)
"""

import hashlib
import json
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.data.batches import flat
from hone.data.truncate import TokenDataset
from hone.errors import HoneError, first_line
from hone.files import fsync_path
from hone.models.dropout import largest_dropout
from hone.models.freeze import blocks, final_norms
from hone.models.inspect import unwrapped
from hone.processes import from_primary, union
from hone.publish import Aside, allocate, begin, discard, publish, seal, seal_problems

log = logging.getLogger("hone")

FORMAT = 1  # raise when the meaning of the rows changes
ROWS = "rows.bin"
PADDING = -1  # row number of a token that belongs to no example
MODES: dict[bool, Literal["c", "r+"]] = {True: "c", False: "r+"}  # published or not; c: no write reaches the file
STORED: dict[torch.dtype, Any] = {
    torch.float32: np.dtype("float32"),
    torch.bfloat16: np.dtype("int16"),
    torch.float16: np.dtype("float16"),
}


class Place(NamedTuple):
    """Where a cache is published, whether it is, and what its name is a hash of (`about`, beside words for people)."""

    folder: Path
    is_published: bool
    about: dict[str, str | int]


class FrozenCache:
    """Hidden states at the input of block `cut`, one row for each token of the training examples.

    What an earlier run has published is read. Else the rows are filled in the first epoch, in a file of this run
    alone: two runs at once never share rows. `publish` gives them to later runs, once all are known. The processes of a
    run share one file, which the primary owns; each fills the rows of its examples, and `share` tells the others.

    Attributes:
        rows: (tokens, width) memory-mapped. known: (tokens,) bool. dtype: of the rows, that of the computation.
    """

    def __init__(self, model: PreTrainedModel, dataset: TokenDataset, place: Place, dtype: torch.dtype) -> None:
        bottom = frozen_bottom(model)
        assert bottom is not None, "only for a model whose lowest blocks are frozen"
        self.stack, self.cut = bottom
        self.dtype, self.place = dtype, place
        self.aside: Aside | None = None  # where the rows are while nobody else may read them
        self._returns_tuple: int | None = None  # how long the tuple is that a block returns
        there = place.is_published
        n_bytes = cache_bytes(model, dataset, dtype)
        folder = place.folder if there else Path(from_primary(lambda: self._begin(n_bytes)))
        shape = (dataset.n_tokens, hidden_size(model))
        self.rows: np.ndarray = np.memmap(folder / ROWS, dtype=STORED[dtype], mode=MODES[there], shape=shape)
        self.known = np.full(dataset.n_tokens, there)
        size, where = self.rows.nbytes / 1e9, place.folder.parent
        log.info("frozen cache: %.2f GB in %s, %.0f %% there already", size, where, 100 * there)

    def _begin(self, n_bytes: int) -> str:
        self.aside = begin(self.place.folder)
        self._drop = weakref.finalize(self, _discard, self.aside, os.getpid())  # also where a run fails
        allocate(self.aside.path / ROWS, n_bytes)
        return str(self.aside.path)

    @contextmanager
    def at(self, rows: Tensor | np.ndarray | None) -> Iterator[None]:
        """Within it a forward pass starts at the cut where all its tokens are known, and else is remembered.

        rows: (T,) numbers of the batch's tokens, PADDING for those of no example; None for a batch to leave alone.
        """
        if rows is None:
            yield
            return
        rows = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows).reshape(-1)
        real = rows != PADDING
        handles: list[Any] = []
        reuse = self._returns_tuple is not None and bool(self.known[rows[real]].all())
        if reuse:
            for block in self.stack[: self.cut]:
                block.forward = self._pass_on
            handles.append(self.stack[self.cut].register_forward_pre_hook(self._replace(rows, real), with_kwargs=True))
        else:
            handles.append(self.stack[0].register_forward_hook(self._look_at))
            handles.append(self.stack[self.cut].register_forward_pre_hook(self._keep(rows, real), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            if reuse:
                for block in self.stack[: self.cut]:
                    del block.forward

    def difference(self, model: PreTrainedModel, dataset: TokenDataset, tolerance: float) -> str | None:
        """Why the logits of a real example do not come out the same from the cache; None if they do.

        Args:
            tolerance: of |difference| over the logits' spread.
        """
        batch = numbered([{**dataset[0], "cache_start": 0}], flat)
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
        known, training = self.known.copy(), model.training
        rows = batch["cache_rows"][batch["cache_rows"] != PADDING].numpy()
        kept = self.rows[rows].copy()  # computed in a batch: alone, the last digits may be others
        self.known[rows] = False
        model.eval()
        try:
            with torch.no_grad():
                logits = []
                for _ in range(2):  # remembered, then reused
                    with self.at(batch["cache_rows"]):
                        logits.append(model(**inputs, use_cache=False).logits.float())
        except (HoneError, TypeError, RuntimeError) as error:
            return first_line(error)
        finally:
            self.known = known
            self.rows[rows] = kept
            model.train(training)
        agrees = bool((logits[0] - logits[1]).abs().max() <= tolerance * logits[0].std().clamp(min=1e-6))
        return None if agrees else "the logits differ"

    def share(self) -> None:
        """Know what other processes have computed by now."""
        self.known = union(self.known)

    def publish(self) -> None:
        """Give the rows to later runs if all are known; what another run has published by then stays.

        Raises:
            OSError, HoneError: they cannot be written.
        """
        if self.aside is None or not self.known.all():
            return
        self._flush()
        fsync_path(self.aside.path / ROWS)
        seal(self.aside.path, self.place.about)
        publish(self.aside, self.place.folder)
        self.aside = None
        self._drop()

    def close(self) -> None:
        """The last use: publish the rows, or remove them.

        Raises:
            OSError, HoneError: they cannot be written.
        """
        if self.aside is not None:
            self._flush()
            self.rows = np.zeros((0, self.rows.shape[1]), self.rows.dtype)  # Windows renames no folder with a map
            try:
                self.publish()
            finally:
                self.aside = None
                self._drop()

    def _flush(self) -> None:
        if isinstance(self.rows, np.memmap):
            self.rows.flush()

    def _pass_on(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A block that does nothing."""
        return (hidden_states, *[None] * (self._returns_tuple - 1)) if self._returns_tuple else hidden_states

    def _look_at(self, block: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, tuple) and any(part is not None for part in output[1:]):
            raise HoneError("its blocks return more than hidden states")
        self._returns_tuple = len(output) if isinstance(output, tuple) else 0

    def _keep(self, rows: np.ndarray, real: np.ndarray) -> Callable[..., None]:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = (args[0] if args else kwargs["hidden_states"]).detach()
            if hidden.requires_grad or hidden.shape[:2].numel() != len(rows):
                raise HoneError("the hidden states are not one for each token")
            states = hidden.reshape(len(rows), -1)[torch.from_numpy(real).to(hidden.device)].to("cpu", self.dtype)
            self.rows[rows[real]] = states.view(torch.int16 if self.dtype == torch.bfloat16 else self.dtype).numpy()
            self.known[rows[real]] = True

        return hook

    def _replace(self, rows: np.ndarray, real: np.ndarray) -> Callable[..., Any]:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            given = args[0] if args else kwargs["hidden_states"]
            states = torch.from_numpy(self.rows[rows[real]]).view(self.dtype)
            hidden = torch.zeros(len(rows), states.shape[1], dtype=given.dtype, device=given.device)
            hidden[torch.from_numpy(real).to(given.device)] = states.to(given.device, given.dtype)
            hidden = hidden.view(given.shape)
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook


def cache_bytes(model: PreTrainedModel, dataset: TokenDataset, dtype: torch.dtype) -> int:
    """The size of the rows of all tokens."""
    return dataset.n_tokens * hidden_size(model) * dtype.itemsize


def no_room(n_bytes: int, folder: Path, limit_bytes: float) -> str | None:
    """Why a cache of this size cannot be made; None if it can."""
    if n_bytes > limit_bytes:
        return f"it would need more than prefix_cache_gb, {limit_bytes / 1e9:g} GB"
    while not folder.exists():
        folder = folder.parent
    return "it would nearly fill the disk" if n_bytes > shutil.disk_usage(folder).free * 0.9 else None


def _discard(aside: Aside, pid: int) -> None:
    if os.getpid() == pid:  # a process that was forked has a copy of the cache
        discard(aside)


def frozen_bottom(model: PreTrainedModel) -> tuple[nn.ModuleList, int] | None:
    """The stack of blocks and how many of them at the bottom are frozen, with everything before them; None if none is.

    Dropout below the cut makes every pass another one: then None as well.
    """
    base: Any = unwrapped(model)
    if getattr(base.config, "is_encoder_decoder", False):
        return None
    try:
        name, stack = blocks(base)
    except HoneError:
        return None
    trained = [any(p.requires_grad for p in block.parameters()) for block in stack]
    cut = trained.index(True) if True in trained else len(stack)
    above = [*stack, *final_norms(base, name).values(), base.get_output_embeddings() or nn.Identity()]
    later = {id(p) for module in above for p in module.parameters()} - {
        id(p) for p in base.get_input_embeddings().parameters()
    }
    before = [p for p in base.parameters() if p.requires_grad and id(p) not in later]
    if not 0 < cut < len(stack) or before or largest_dropout(base) > 0:
        return None
    return stack, cut


def hidden_size(model: PreTrainedModel) -> int:
    return int(model.get_input_embeddings().weight.shape[1])


def cache_place(model: PreTrainedModel, dataset: TokenDataset, folder: Path, dtype: torch.dtype) -> Place:
    """Where the rows lie: named by a hash of the weights run below the cut, tokens, where examples begin, formats."""
    bottom = frozen_bottom(model)
    assert bottom is not None, "only for a model whose lowest blocks are frozen"
    stack, cut = bottom
    config = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_") and k != "transformers_version"}
    weights, tokens = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    above = {id(p) for block in stack[cut:] for p in block.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in above and not parameter.requires_grad:
            weights.update(name.encode())
            weights.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    tokens.update(np.ascontiguousarray(dataset.lengths).data)
    for i in range(len(dataset)):
        tokens.update(np.ascontiguousarray(dataset[i]["input_ids"]).data)
    about: dict[str, str | int] = {
        "format": FORMAT,
        "blocks": cut,
        "rows": str(dtype),
        "computed_in": str(model.dtype),
        "config": hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=16).hexdigest(),
        "weights": weights.hexdigest(),
        "tokens_digest": tokens.hexdigest(),
    }
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()
    about |= {"model": str(model.config._name_or_path), "tokens": dataset.n_tokens}
    return Place(folder / key, _is_whole(folder / key), about)


def _is_whole(folder: Path) -> bool:
    """Whether an earlier run has left all rows there, as it wrote them; the file is read whole, as it soon will be."""
    found = seal_problems(folder, whole=True) if folder.exists() else []
    if found:
        log.warning("the frozen cache %s is damaged (%s): it is not used, and written anew", folder, "; ".join(found))
    return folder.exists() and not found


class Numbered(torch.utils.data.Dataset[Any]):
    """Examples that know which rows of the cache are theirs."""

    def __init__(self, dataset: TokenDataset) -> None:
        self.dataset = dataset
        self.starts = np.cumsum(dataset.lengths) - dataset.lengths

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], "cache_start": self.starts[index]}


def numbered(items: Sequence[Any], collate: Callable[[Sequence[Any]], dict[str, Any]]) -> dict[str, Any]:
    """A flat batch with `cache_rows` (1, T), the cache row of each token."""
    batch = collate(items)
    rows = np.concatenate([item["cache_start"] + np.arange(len(item["input_ids"])) for item in items])
    rest = batch["input_ids"].shape[1] - len(rows)
    batch["cache_rows"] = torch.from_numpy(np.pad(rows, (0, rest), constant_values=PADDING))[None]
    return batch
