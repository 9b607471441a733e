"""hone's faster step inside anybody's training script: one call on the model, one collator.

>>> model = AutoModelForCausalLM.from_pretrained("distilgpt2")                          # doctest: +SKIP
>>> hone.speed_up(model)                                                               # doctest: +SKIP
['memory kept between steps', '6 fused GELUs', 'attention by example', 'output layer and loss as one operation']
>>> Trainer(model, args, train_dataset=rows, data_collator=hone.flat_collator)         # doctest: +SKIP
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.data.batches import filled, flat
from hone.data.truncate import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBES = (9, 5, 14)  # tokens of the made-up examples that the checks look at


def speed_up(model: "PreTrainedModel", max_length: int | None = None) -> list[str]:
    """Make the training step of a causal model cheaper, without changing what it computes; what was done, in words.

    Each part is compared with the plain computation on made-up examples first and left out where it differs. In
    training, the model called with labels returns its loss and no logits; called otherwise it is as it was.

    Args:
        max_length: tokens of the longest example; by default what the model has positions for.
    """
    from hone.accelerations.allocator import keep_freed_memory
    from hone.accelerations.equivalence import head_difference, heeds_logits_to_keep, keeps_examples_apart
    from hone.accelerations.fused_cross_entropy import FusedHead
    from hone.accelerations.gelu import fuse_gelu
    from hone.accelerations.varlen_attention import use_segments

    done: list[str] = []
    data = _probes(model)
    if model.device.type == "cpu" and keep_freed_memory():
        done.append("memory kept between steps")
    if n := fuse_gelu(model):
        done.append(f"{n} fused GELUs")
    length = max_length or getattr(model.config, "max_position_embeddings", None) or 1 << 20
    implementation = model.config._attn_implementation
    if use_segments(model, length, model.device.type):
        if keeps_examples_apart(model, data):
            done.append("attention by example")
        else:
            model.set_attn_implementation(implementation)
    head = FusedHead.of(model)
    if head and heeds_logits_to_keep(model, data) and not head_difference(model, head, data):
        model.forward = _with_fused_loss(model, head)
        done.append("output layer and loss as one operation")
    return done


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


def _probes(model: "PreTrainedModel") -> Any:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, model.get_input_embeddings().weight.shape[0], n) for n in PROBES]
    return [{"input_ids": x, "labels": np.concatenate([[IGNORE_INDEX], x[1:]])} for x in ids]


def _with_fused_loss(model: "PreTrainedModel", head: Any) -> Any:
    """The model's forward: in training and with labels, its loss through the fused head."""
    from hone.loss import scored_positions

    plain = model.forward

    @functools.wraps(plain)  # Trainer reads the signature to know which columns the model takes
    def forward(*args: Any, **kwargs: Any) -> Any:
        labels = kwargs.get("labels")
        if args or labels is None or not model.training or "logits_to_keep" in kwargs:
            return plain(*args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "labels"}
        num_items = kwargs.pop("num_items_in_batch", None)
        with head.skipped():
            outputs = plain(**kwargs, logits_to_keep=scored_positions(labels))
        outputs.loss, outputs.logits = head.loss(outputs.logits, labels, num_items), None
        return outputs

    return forward
