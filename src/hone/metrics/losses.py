"""Loss, perplexity and bits per byte of a model over held-out documents.

Examples are sorted by length and padded on the right. A causal model never looks right, so the padding is invisible to
every real token and no attention mask is needed: the numbers are those of the documents one by one (a test holds it).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from hone.data.batches import padded
from hone.data.truncate import IGNORE_INDEX, TokenDataset
from hone.errors import HoneError
from hone.loss import token_nll
from hone.metrics.strided import StridedDataset
from hone.models.by_batch import numbers_by_batch
from hone.results import Kind, Measurement, level_of
from hone.statistics.paired import Metric, level

LOGIT_ELEMENTS = 1 << 25  # at most this many logits at once (128 MB in float32), however large the vocabulary


LOSS = Kind(heading="loss", unit="nats/token", higher_is_better=False, per_token=True)
PERPLEXITY = Kind(heading="perplexity", higher_is_better=False, form=",.2f", exponential_of="loss")
BITS_PER_BYTE = Kind(heading="bits per byte", higher_is_better=False, restates="loss")


@dataclass(frozen=True)
class ItemLosses:
    """One row per item: a document, or a piece of the only document.

    nll: (n,) float64, nats. n_tokens, n_bytes: (n,) int64, supervised tokens and the UTF-8 bytes they stand for.
    item: what one is called.
    """

    nll: np.ndarray
    n_tokens: np.ndarray
    n_bytes: np.ndarray
    item: str

    def metrics(self) -> dict[str, Metric]:
        """The loss; and bits per byte, where tokens stand for bytes."""
        found = {"loss": Metric(LOSS, self.nll, self.n_tokens)}
        if self.n_bytes.any():
            found["bits_per_byte"] = Metric(BITS_PER_BYTE, self.nll / math.log(2), self.n_bytes)
        return found


def item_losses(
    model: PreTrainedModel, dataset: TokenDataset | StridedDataset, byte_lengths: np.ndarray, *, tokens_per_batch: int
) -> ItemLosses:
    """Sum of token losses for each item of `dataset`; the model is used as it is, without gradients or dropout.

    Args:
        byte_lengths: (vocabulary,) bytes each token stands for (`tokenizer.token_byte_lengths`).
        tokens_per_batch: padded tokens in a batch; fewer where the vocabulary is large.
    """
    if not len(dataset):
        raise HoneError("there are no validation rows to measure", fix="set validation_split_percentage above 0")

    def of_batch(indices: np.ndarray) -> np.ndarray:
        batch = padded([dataset[i] for i in indices], pad_token_id=0)
        ids, labels = torch.as_tensor(batch["input_ids"]), torch.as_tensor(batch["labels"])
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits  # (B, T, V)
        nll = token_nll(logits, labels.to(model.device)).sum(-1, dtype=torch.float64)
        return loss_columns(nll, labels, np.where(labels != IGNORE_INDEX, byte_lengths[ids.numpy()], 0))

    found = losses_by_batch(model, dataset.lengths, of_batch, tokens_per_batch=tokens_per_batch)
    if dataset.split.n_documents == 1:
        return ItemLosses(*found, "piece")
    documents, group = np.unique(dataset.documents, return_inverse=True)
    nll, n_tokens, n_bytes = (np.bincount(group, weights=values, minlength=len(documents)) for values in found)
    return ItemLosses(nll, n_tokens.astype(int), n_bytes.astype(int), "document")


def loss_columns(nll: torch.Tensor, labels: torch.Tensor, n_bytes: np.ndarray) -> np.ndarray:
    """What is known of each row of a batch, (B, 3): nats, supervised tokens, their bytes.

    Args:
        nll: (B,) nats of each row. labels: (B, T). n_bytes: (B, T), of each supervised token.
    """
    counts = (labels != IGNORE_INDEX).sum(-1).numpy()
    return np.stack([nll.cpu().numpy(), counts, n_bytes.sum(-1)], axis=1)


def losses_by_batch(
    model: PreTrainedModel, lengths: np.ndarray, of_batch: Callable[[np.ndarray], np.ndarray], *, tokens_per_batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """nll (n,) float64, n_tokens and n_bytes (n,) int64, of batches whose logits are not more than LOGIT_ELEMENTS.

    Args:
        of_batch: indices of a batch to its `loss_columns`.
    """
    budget = min(tokens_per_batch, LOGIT_ELEMENTS // model.get_input_embeddings().weight.shape[0])
    found = numbers_by_batch(model, lengths, of_batch, tokens_per_batch=budget, columns=3)
    return found[:, 0], found[:, 1].astype(int), found[:, 2].astype(int)


def measurement_of(task: str, losses: ItemLosses, *, confidence: float, resamples: int) -> Measurement:
    """Loss in nats per token, perplexity = exp(loss), bits per byte, each with its interval over items."""
    found = {
        name: level(metric, confidence=confidence, resamples=resamples) for name, metric in losses.metrics().items()
    }
    loss = found.pop("loss")
    perplexity = level_of(PERPLEXITY, loss.mapped(perplexity_of))
    return Measurement(
        task=task,
        metrics={"loss": loss, "perplexity": perplexity, **found},
        n_items=len(losses.nll),
        item=losses.item,
        n_tokens=int(losses.n_tokens.sum()),
        n_bytes=int(losses.n_bytes.sum()),
        confidence_level=confidence,
    )


def perplexity_of(loss: float) -> float:
    """exp(loss), but a diverged model's perplexity stays a finite JSON number."""
    return math.exp(min(loss, 700.0))
