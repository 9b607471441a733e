"""Frozen cache: the hidden states that enter the first trained block, computed once for each token and kept on disk.

With the bottom of a network frozen, the hidden state that enters the first trained block is a function of the example
alone. In the first epoch it is written to a memory-mapped file; from then on the blocks below are not run. The file's
name says what it depends on (weights below the cut, tokens, number format), so other seeds, ranks and learning rates on
the same data find it too. The idea: AutoFreeze, arXiv 2102.01386; PAC, arXiv 2408.10746.

>>> file = cache_file(model, dataset, folder, torch.bfloat16)                    # doctest: +SKIP
>>> cache = FrozenCache(model, dataset, file, torch.bfloat16)                    # doctest: +SKIP
>>> with cache.at(batch.pop("cache_rows")):                                      # doctest: +SKIP
...     loss = model(**batch)
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.data.batches import flat
from hone.data.truncate import TokenDataset
from hone.errors import HoneError, first_line
from hone.files import write_json_atomic
from hone.models.dropout import largest_dropout
from hone.models.freeze import blocks, final_norms
from hone.models.inspect import unwrapped

log = logging.getLogger("hone")

PADDING = -1  # row number of a token that belongs to no example
STORED: dict[torch.dtype, Any] = {
    torch.float32: np.dtype("float32"),
    torch.bfloat16: np.dtype("int16"),
    torch.float16: np.dtype("float16"),
}


class FrozenCache:
    """Hidden states at the input of block `cut`, one row for each token of the training examples.

    What an earlier run left in `file` is used; the rows that are not known yet are filled in the first epoch.

    Attributes:
        rows: (tokens, width) memory-mapped. known: (tokens,) bool. dtype: of the rows, that of the computation.
    """

    def __init__(self, model: PreTrainedModel, dataset: TokenDataset, file: Path, dtype: torch.dtype) -> None:
        bottom = frozen_bottom(model)
        assert bottom is not None, "only for a model whose lowest blocks are frozen"
        self.stack, self.cut = bottom
        self.dtype, self.marks = dtype, file.with_suffix(".npy")
        n_tokens, size = dataset.n_tokens, cache_bytes(model, dataset, dtype)
        file.parent.mkdir(parents=True, exist_ok=True)
        mode: Any = "r+" if is_filled(file) and file.is_file() else "w+"
        self.rows = np.memmap(file, dtype=STORED[dtype], mode=mode, shape=(n_tokens, hidden_size(model)))
        self.known = np.load(self.marks) if mode == "r+" else np.zeros(n_tokens, dtype=bool)
        # marks are on disk only while the rows they speak of are: whoever is killed leaves none
        self.marks.unlink(missing_ok=True)
        self._returns_tuple: int | None = None  # how long the tuple is that a block returns
        about = {"blocks": self.cut, "tokens": n_tokens, "bytes": size, "model": model.config._name_or_path}
        write_json_atomic(file.with_suffix(".json"), about)
        log.info("frozen cache: %.2f GB in %s, %.0f %% there already", size / 1e9, file.parent, 100 * self.known.mean())

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
        self.known[: inputs["input_ids"].shape[1]] = False
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
            model.train(training)
        agrees = bool((logits[0] - logits[1]).abs().max() <= tolerance * logits[0].std().clamp(min=1e-6))
        return None if agrees else "the logits differ"

    def close(self) -> None:
        """Write rows, then marks: the cache can be used by the next run."""
        self.rows.flush()
        with self.marks.with_suffix(".tmp").open("wb") as stream:
            np.save(stream, self.known)
        self.marks.with_suffix(".tmp").replace(self.marks)

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


def is_filled(file: Path) -> bool:
    """Whether an earlier run left rows there."""
    return file.with_suffix(".npy").is_file()


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


def cache_file(model: PreTrainedModel, dataset: TokenDataset, folder: Path, dtype: torch.dtype) -> Path:
    """Where the rows lie: named by a hash of the weights run below the cut, tokens, where examples begin, formats."""
    bottom = frozen_bottom(model)
    assert bottom is not None, "only for a model whose lowest blocks are frozen"
    stack, cut = bottom
    digest = hashlib.blake2b(digest_size=12)
    config = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_") and k != "transformers_version"}
    about = [cut, str(dtype), str(model.dtype), json.dumps(config, sort_keys=True, default=str)]
    digest.update(json.dumps(about).encode())
    above = {id(p) for block in stack[cut:] for p in block.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in above and not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    digest.update(np.ascontiguousarray(dataset.lengths).data)
    for i in range(len(dataset)):
        digest.update(np.ascontiguousarray(dataset[i]["input_ids"]).data)
    return folder / f"{digest.hexdigest()}.bin"


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
