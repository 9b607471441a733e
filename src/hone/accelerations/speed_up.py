"""hone's faster step inside anybody's training script: one call on the model, one collator.

>>> model = AutoModelForCausalLM.from_pretrained("distilgpt2")                          # doctest: +SKIP
>>> hone.speed_up(model)                                                               # doctest: +SKIP
['freed memory kept for the next step', '6 fused GELUs', 'variable-length attention',
 'logits of scored positions only', 'fused cross-entropy']
>>> Trainer(model, args, train_dataset=rows, data_collator=hone.flat_collator)         # doctest: +SKIP
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hone.accelerations.attach import Attached, Options, attach
from hone.config.sections.speed import SpeedKeys
from hone.data.batches import filled, flat
from hone.data.truncate import IGNORE_INDEX

PROBES = (9, 5, 14)  # tokens of the made-up examples that the checks look at


def speed_up(model: PreTrainedModel, max_length: int | None = None) -> list[str]:
    """Make the training step of a causal model cheaper, without changing what it computes; what was done, in words.

    Each part is compared with the plain computation on made-up examples first and left out where it differs. In
    training, the model called with labels returns its loss and no logits; called otherwise it is as it was.

    Args:
        max_length: tokens of the longest example; by default what the model has positions for.
    """
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, model.get_input_embeddings().weight.shape[0], n) for n in PROBES]
    data = [{"input_ids": x, "labels": np.concatenate([[IGNORE_INDEX], x[1:]])} for x in ids]
    length = max_length or getattr(model.config, "max_position_embeddings", None) or 1 << 20
    attached = attach(model, data, Options(SpeedKeys(), model.device.type, length))
    if attached.scored_only:
        model.forward = _with_loss(model, attached)
    return attached.notes


def flat_collator(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of input_ids (and labels, else all tokens count) end to end in one row, for Trainer and for plain loops.

    Returns input_ids, labels and position_ids (1, T), and no attention mask: positions that begin again say where an
    example begins. No example's first token is a label, because nothing of its own stands before it.
    """
    items: list[Any] = []
    for example in examples:
        ids = np.asarray(example["input_ids"], dtype=np.int64)
        labels = np.array(example.get("labels", ids), dtype=np.int64)
        labels[:1] = IGNORE_INDEX
        items.append({"input_ids": ids, "labels": labels})
    batch = flat(items, size=filled)
    del batch["num_tokens"]
    return batch


def _with_loss(model: PreTrainedModel, attached: Attached) -> Any:
    """The model's forward; in training and with labels, its loss as attached."""
    plain = model.forward

    @functools.wraps(plain)  # Trainer reads the signature to know which columns the model takes
    def forward(*args: Any, **kwargs: Any) -> Any:
        labels = kwargs.get("labels")
        if args or labels is None or not model.training or "logits_to_keep" in kwargs:
            return plain(*args, **kwargs)
        num_items = kwargs.pop("num_items_in_batch", None)
        with attached.forward(kwargs) as given:
            del given["labels"]
            outputs = plain(**given)
        outputs.loss, outputs.logits = attached.loss(outputs.logits, labels, num_items), None
        return outputs

    return forward
