"""How much memory a config needs, in its parts, and how much there is: the plan's model without weights.

Builds the model of a config without memory, gives it the method, the attention and the batch that the engine would,
and asks `memory.py` what a step and an evaluation hold.

>>> footprint(config, tokenizer, lengths, batch, None).memory.total          # doctest: +SKIP
"""

import contextlib
import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.bundled import named
from hone.config.schema import Config
from hone.data.batches import by_length, cut, filled, flat, packed, padded
from hone.data.prepare import Prepared
from hone.data.special_tokens import padding_id
from hone.data.truncate import IGNORE_INDEX, Item
from hone.errors import HoneError, first_line, placed
from hone.hardware import best_device, read_cgroup, read_memory
from hone.metrics.losses import LOGIT_ELEMENTS
from hone.models.build import apply_method
from hone.models.freeze import Group, groups
from hone.models.inspect import check_vocabulary, takes
from hone.models.kinds import loading_fix
from hone.models.load import load_model
from hone.models.source import check_source, refuse_adapter
from hone.planning.lengths import Lengths
from hone.tasks import TASKS, task_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.planning.heap import Heap

# Bytes that an optimizer keeps for a trained number: (multiples of the number's own size, further bytes).
OPTIMIZER_STATE = {
    "adamw_torch_fused": (2, 0),
    "adamw_torch": (2, 0),
    "adagrad": (1, 0),
    "rmsprop": (1, 0),
    "sgd": (0, 0),
    "adafactor": (0, 0),  # a row and a column of each matrix; muon has no one multiple: see _optimizer_bytes
    "adamw_8bit": (0, 2),
    "paged_adamw_8bit": (0, 2),
    "paged_adamw_32bit": (0, 8),
    "lion_8bit": (0, 1),
    "lion_32bit": (0, 4),
}

# Keys of configs that say the logits are more than one product: the fused head then steps aside.
LOGITS_CHANGED = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(frozen=True)
class Footprint:
    """Bytes. The parts are those at their largest; `training`, `evaluation` and `loading` are what there is at once,
    and `total` is the most of them with the gaps, beside what the process holds anyway.

    trained: of the weights, those that train. activations, logits: None where the step could not be followed.
    untraced: why, then. gaps: what the allocator keeps between the blocks.
    free: what this machine has free now, for this process.
    """

    weights: int
    trained: int
    gradients: int
    optimizer: int
    activations: int | None
    logits: int | None
    training: int
    evaluation: int
    loading: int
    gaps: int
    total: int
    free: int
    process: int
    untraced: str | None = None

    @property
    def fits(self) -> bool:
        return self.total <= self.free

    @property
    def fullest(self) -> str:
        """When the most is held: training, evaluation or loading."""
        return max(("training", "evaluation", "loading"), key=lambda name: getattr(self, name))


@dataclass(frozen=True)
class Shape:
    """What `footprint` found."""

    memory: Footprint
    groups: list[Group]
    device: str


def footprint(
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    lengths: Lengths,
    batches: list[list[np.ndarray]],
    data: Prepared | None,
) -> Shape:
    """Memory of a config's training.

    Args:
        batches: micro-batches of the run, the fullest last (`plan.chosen_batches`): rows, each an array of examples.
        data: needed for tasks other than causal.

    Raises:
        HoneError: the model's config cannot be read, or the method does not fit the model.
    """
    import psutil
    import torch

    from hone.accelerations.gelu import fuse_gelu
    from hone.planning.memory import pass_memory, step_memory, weights_of, without_memory

    device = best_device(config.train.use_cpu)
    with torch.device("meta"):
        model = _skeleton(config, tokenizer, data)
        if config.train.fused_gelu:
            fuse_gelu(model)
        batching = _batching(config, model, device)
    fakes = without_memory(model, device)
    if config.train.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    model.train()
    cuts = [_pieces(config, _batch(config, tokenizer, lengths, rows, data, batching)) for rows in batches]
    inputs = [max(pieces, key=lambda piece: piece["input_ids"].numel()) for pieces in cuts]
    head = _fused_head(config, model)
    weights = sum(_bytes(t) for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
    trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
    optimizer = _optimizer_bytes(config, model)
    heap = heap_of(config, device)
    step, untraced, evaluation = None, None, 0
    try:
        counted = weights_of(fakes, model, heap)
        measure = _evaluation(config, tokenizer, model, lengths, data)
        if measure is not None and config.eval.eval_base:
            pass_memory(counted, model, measure)
        loss = _loss(config, data) if head is None else functools.partial(head.loss, num_items=1)
        step = step_memory(
            counted,
            model,
            inputs,
            _forward(config, device, head),
            loss,
            optimizer=optimizer,
            accumulates=config.train.gradient_accumulation_steps > 1 or any(len(pieces) > 1 for pieces in cuts),
        )
        if measure is not None:  # beside the optimizer, as in the middle of a training
            evaluation = weights + optimizer + pass_memory(counted, model, measure)
    except Exception as error:  # data decides the shapes of some architectures (experts): they cannot be followed
        untraced = first_line(error)
    training = max(weights + optimizer + trained, step.peak if step else 0)
    loading = weights if config.model.model_type else 2 * weights  # the file's pages are held while they are copied
    live = max(training, evaluation, loading)
    return Shape(
        Footprint(
            weights=weights,
            trained=trained,
            gradients=step.gradients if step else trained,
            optimizer=optimizer,
            activations=step.activations if step else None,
            logits=step.logits if step else None,
            training=training,
            evaluation=evaluation,
            loading=loading,
            gaps=max(0, heap.peak - live) if heap and not untraced else 0,
            total=max(live, heap.peak if heap and not untraced else 0),
            free=free_memory(device),
            process=psutil.Process().memory_info().rss,
            untraced=untraced,
        ),
        groups(model),
        device,
    )


def free_memory(device: str) -> int:
    """Bytes that are free on the GPU, or for this process on the machine and in its control group."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    free, limit = read_memory()[1], read_cgroup().memory_free_bytes
    return free if limit is None else min(free, limit)


def heap_of(config: Config, device: str) -> "Heap | None":
    """How the C library's allocator will work in the training process; None where it is not glibc's."""
    from hone.planning.heap import Heap

    return Heap(keep=config.train.keep_freed_memory) if device == "cpu" and platform.libc_ver()[0] == "glibc" else None


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _optimizer_bytes(config: Config, model: Any) -> int:
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.train.optim == "adafactor":
        return sum(4 * (sum(p.shape) if p.dim() > 1 else p.numel()) for p in trained)
    if config.train.optim == "muon":
        from hone.training.muon import hidden_matrices

        hidden = hidden_matrices(model)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return sum((1 if name in hidden else 2) * _bytes(p) for name, p in named)
    multiple, more = OPTIMIZER_STATE[config.train.optim]
    return sum(multiple * _bytes(p) + more * p.numel() for p in trained)


# ---- the model and what it is given --------------------------------------------------------------------------------


def _skeleton(config: Config, tokenizer: "PreTrainedTokenizerBase", data: Prepared | None) -> "PreTrainedModel":
    """The config's model, made where tensors have no memory."""
    import torch
    import transformers

    from hone.models.classifier_head import label_maps

    section, kind = config.model, task_of(config).model
    outputs = data.train.outputs if data is not None else ()
    pad = None if kind.continues else padding_id(tokenizer)
    if section.model_name_or_path is None:
        model = load_model(section, kind, tokenizer, seed=0, where=config.where, outputs=outputs, pad_token_id=pad)
        return apply_method(config, kind, model)
    name = section.model_name_or_path
    refuse_adapter(name)
    check_source(name)
    remote = section.trust_remote_code
    try:
        about = transformers.AutoConfig.from_pretrained(
            named(name),
            revision=section.model_revision or "main",
            trust_remote_code=remote,
            **(label_maps(outputs) if outputs else {}),
        )
        model = kind.auto.from_config(
            about,
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
            trust_remote_code=remote,
        )
    except Exception as error:  # OSError, ValueError, KeyError, ImportError …
        raise HoneError(
            f"cannot read the model's config: {first_line(error)}",
            where=config.where("model_name_or_path") or name,
            fix=loading_fix(name, first_line(error), kind),
        ) from error
    if pad is not None:
        model.config.pad_token_id = pad
    with placed(config.where("tokenizer_name_or_path") or config.where("model_name_or_path")):
        check_vocabulary(model, tokenizer)
    return apply_method(config, kind, model)


def _batching(config: Config, model: Any, device: str) -> str:
    """The batching the engine will use, with attention by segments switched on where it would be."""
    from hone.accelerations.varlen_attention import use_varlen_attention

    batching = config.data.batching
    if batching not in ("flat", "packed") or config.method.task != "causal":
        return "padded"
    if not takes(model, "position_ids"):
        return "padded"
    if config.train.segment_attention:
        use_varlen_attention(model, config.data.max_length, device)
    return batching


def _batch(
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    lengths: Lengths,
    rows: list[np.ndarray],
    data: Prepared | None,
    batching: str,
) -> dict[str, Any]:
    """The micro-batch as the engine lays it out; for the causal task the lengths are real, the ids are all 0."""
    collate: Callable[..., dict[str, Any]] | None = TASKS[config.method.task].collate
    if collate is not None:
        assert data is not None, "tasks with labels of their own are planned on prepared data"
        batch = collate([data.train[int(i)] for row in rows for i in row], pad_token_id=padding_id(tokenizer))
    else:
        items = [[_item(int(lengths.train[i]), int(lengths.supervised[i])) for i in row] for row in rows]
        if batching == "packed":
            batch = packed(items, max_length=config.data.max_length, pad_token_id=0)
        else:
            items_of_all = [item for row in items for item in row]
            flat_row = batching == "flat"
            batch = flat(items_of_all, filled) if flat_row else padded(items_of_all, pad_token_id=0)
    batch.pop("num_tokens")
    return batch


def _pieces(config: Config, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """What goes forward and backward at once."""
    most = config.train.micro_batch_tokens
    return [batch] if most is None or config.method.task != "causal" else cut(batch, most)


def _item(length: int, supervised: int) -> Item:
    labels = np.full(length, IGNORE_INDEX)
    labels[length - min(supervised, length - 1) :] = 0
    return {"input_ids": np.zeros(length, np.int64), "labels": labels}


# ---- the step ------------------------------------------------------------------------------------------------------


def _fused_head(config: Config, model: Any) -> Any:
    """The output layer that the engine would join with the loss; None where the engine would leave it alone."""
    from hone.accelerations.fused_cross_entropy import FusedCrossEntropy

    train = config.train
    if config.method.task != "causal" or not (train.scored_rows_only and train.fused_head) or train.fp16:
        return None
    text = model.config.get_text_config(decoder=True)
    if not takes(model, "logits_to_keep") or any(getattr(text, key, None) not in (None, 1.0) for key in LOGITS_CHANGED):
        return None
    return FusedCrossEntropy.of(model)


def _forward(config: Config, device: str, head: Any = None) -> Callable[[Any, dict[str, Any]], Any]:
    """Model and batch -> logits (or what the fused head takes instead), as the Trainer's compute_loss does it."""
    import torch

    from hone.loss import scored_positions

    train, task = config.train, config.method.task
    dtype = torch.bfloat16 if train.bf16 else torch.float16

    def forward(model: Any, batch: dict[str, Any]) -> Any:
        inputs = TASKS[task].inputs(model, dict(batch))
        labels = inputs.pop("labels")
        if task == "causal" and train.scored_rows_only and takes(model, "logits_to_keep"):
            inputs["logits_to_keep"] = scored_positions(labels)
        with (
            torch.autocast(device, dtype, enabled=bool(train.bf16 or train.fp16)),
            head.head_skipped() if head else contextlib.nullcontext(),
        ):
            logits = model(**inputs).logits
        return logits.float()  # accelerate's mixed precision hands float32 out

    return forward


def _loss(config: Config, data: Prepared | None) -> Callable[[Any, Any], Any]:
    """Logits and labels -> the loss of the config's task."""
    loss = TASKS[config.method.task].loss(config, data)  # type: ignore[arg-type]  # causal needs no data
    return lambda logits, labels: loss(logits, labels, 1)


def _evaluation(
    config: Config, tokenizer: "PreTrainedTokenizerBase", model: Any, lengths: Lengths, data: Prepared | None
) -> Callable[[Any], Any] | None:
    """What measures the largest validation batch; None without one. Generated samples are not looked at."""
    from hone.loss import token_nll

    if not len(lengths.validation):
        return None
    task, loss = TASKS[config.method.task], _loss(config, data)
    budget = config.eval.eval_tokens_per_batch
    if config.method.task != "classification":  # there the vocabulary's logits fill the memory first
        budget = min(budget, LOGIT_ELEMENTS // model.get_input_embeddings().weight.shape[0])
    chosen = max(by_length(lengths.validation, budget), key=lambda rows: len(rows) * int(lengths.validation[rows[0]]))
    if task.collate is None:
        batch = padded([_item(int(lengths.validation[i]), 1) for i in chosen], pad_token_id=0)
        batch.pop("attention_mask", None)  # a causal model never looks right
    else:
        assert data is not None, "tasks with labels of their own are planned on prepared data"
        batch = task.collate([data.validation[int(i)] for i in chosen], pad_token_id=padding_id(tokenizer))
    batch.pop("num_tokens")

    def measure(model: Any) -> Any:
        inputs = task.inputs(model, dict(batch))
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        return token_nll(logits, labels) if task.collate is None else loss(logits, labels)

    return measure
