"""Loss, perplexity and bits per byte of a model over held-out documents.

Examples are sorted by length and padded on the right. A causal model never looks right, so the padding is invisible to
every real token and no attention mask is needed: the numbers are those of the documents one by one (a test holds it).
"""

import functools
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.data.batches import by_length, padded
from hone.data.truncate import IGNORE_INDEX, TokenDataset
from hone.errors import HoneError
from hone.metrics.strided import StridedDataset
from hone.statistics.intervals import Interval, ratio_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGIT_ELEMENTS = 1 << 25  # at most this many logits at once (128 MB in float32), however large the vocabulary


@dataclass(frozen=True)
class ItemLosses:
    """One row per item: a document, or a piece of the only document.

    nll: (n,) float64, nats. n_tokens, n_bytes: (n,) int64, supervised tokens and the UTF-8 bytes they stand for.
    kind: what an item is.
    """

    nll: np.ndarray
    n_tokens: np.ndarray
    n_bytes: np.ndarray
    kind: str

    def as_dict(self) -> dict[str, Any]:
        lists = {"nll": self.nll.tolist(), "n_tokens": self.n_tokens.tolist(), "n_bytes": self.n_bytes.tolist()}
        return {"kind": self.kind, **lists}


@dataclass(frozen=True)
class Perplexity:
    """loss in nats per token, perplexity = exp(loss), bits per byte = nats / ln 2 / bytes; intervals over items."""

    loss: float
    loss_interval: list[float] | None
    perplexity: float
    perplexity_interval: list[float] | None
    bits_per_byte: float | None  # None where tokens stand for no bytes
    bits_per_byte_interval: list[float] | None
    n_tokens: int
    n_bytes: int
    n_items: int
    item: str
    confidence_level: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def item_losses(
    model: "PreTrainedModel", dataset: TokenDataset | StridedDataset, byte_lengths: np.ndarray, *, tokens_per_batch: int
) -> ItemLosses:
    """Sum of token losses for each item of `dataset`; the model is used as it is, without gradients or dropout.

    Args:
        byte_lengths: (vocabulary,) bytes each token stands for (`tokenizer.token_byte_lengths`).
        tokens_per_batch: padded tokens in a batch; fewer where the vocabulary is large.
    """
    import torch

    from hone.loss import token_nll

    if not len(dataset):
        raise HoneError("there are no validation rows to measure", fix="set validation_split_percentage above 0")
    nll, n_tokens, n_bytes = np.zeros(len(dataset)), np.zeros(len(dataset), int), np.zeros(len(dataset), int)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    training = model.training
    model.eval()
    with torch.inference_mode():
        for indices in by_length(dataset.lengths, min(tokens_per_batch, LOGIT_ELEMENTS // vocabulary)):
            batch = padded([dataset[i] for i in indices], pad_token_id=0)
            ids, labels = torch.as_tensor(batch["input_ids"]), torch.as_tensor(batch["labels"])
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits  # (B, T, V)
            nll[indices] = token_nll(logits, labels.to(model.device)).sum(-1, dtype=torch.float64).cpu().numpy()
            counted = (labels != IGNORE_INDEX).numpy()
            n_tokens[indices] = counted.sum(-1)
            n_bytes[indices] = np.where(counted, byte_lengths[ids.numpy()], 0).sum(-1)
    model.train(training)
    if dataset.split.n_documents == 1:
        return ItemLosses(nll, n_tokens, n_bytes, "piece")
    documents, group = np.unique(dataset.documents, return_inverse=True)
    sums = [np.bincount(group, weights=values, minlength=len(documents)) for values in (nll, n_tokens, n_bytes)]
    return ItemLosses(sums[0], sums[1].astype(int), sums[2].astype(int), "document")


def summarize(losses: ItemLosses, *, confidence: float, resamples: int) -> Perplexity:
    """Ratios of sums over items with bootstrap intervals."""
    ratio = functools.partial(ratio_interval, positive=True, confidence=confidence, resamples=resamples)
    loss = ratio(losses.nll, losses.n_tokens)
    bits = ratio(losses.nll / math.log(2), losses.n_bytes) if losses.n_bytes.any() else None
    perplexity = loss.map(perplexity_of)
    return Perplexity(
        loss=loss.value,
        loss_interval=_bounds(loss),
        perplexity=perplexity.value,
        perplexity_interval=_bounds(perplexity),
        bits_per_byte=bits.value if bits else None,
        bits_per_byte_interval=_bounds(bits) if bits else None,
        n_tokens=int(losses.n_tokens.sum()),
        n_bytes=int(losses.n_bytes.sum()),
        n_items=loss.n_items,
        item=losses.kind,
        confidence_level=confidence,
    )


def perplexity_of(loss: float) -> float:
    """exp(loss), but a diverged model's perplexity stays a finite JSON number."""
    return math.exp(min(loss, 700.0))


def _bounds(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]
