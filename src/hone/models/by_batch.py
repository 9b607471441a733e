"""Numbers of examples, computed in batches of like length, without gradients or dropout, by all processes together.

The batches are the same whatever the number of processes, and so are the numbers, to the last bit.

>>> numbers_by_batch(model, lengths, compute, tokens_per_batch=4096, columns=1)       # doctest: +SKIP
"""

from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from hone.data.batches import by_length
from hone.processes import shared


def numbers_by_batch(
    model: PreTrainedModel,
    lengths: np.ndarray,
    compute: Callable[[np.ndarray], np.ndarray],
    *,
    tokens_per_batch: int,
    columns: int,
) -> np.ndarray:
    """`columns` numbers of each example, (n, columns) float64.

    Args:
        lengths: (n,) tokens of each.
        compute: indices of a batch (B,) to their numbers (B, columns).
        tokens_per_batch: padded tokens in a batch.
    """
    batches = by_length(lengths, tokens_per_batch)
    training = model.training
    model.eval()
    with torch.inference_mode():
        found = shared(batches, lambda mine: [compute(batch).tolist() for batch in mine])
    model.train(training)
    numbers = np.zeros((len(lengths), columns))
    for batch, of_batch in zip(batches, found, strict=True):
        numbers[batch] = of_batch
    return numbers
