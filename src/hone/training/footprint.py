"""How much memory a config needs, in its parts, and how much there is: the plan's model without weights.

Builds the model of a config without memory, gives it the method, the attention and the batch that the engine would,
and asks `memory.py` what a step and an evaluation hold.

>>> footprint(config, tokenizer, lengths, batch, None).memory.total          # doctest: +SKIP
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.batches import flat, packed, padded
from hone.data.estimate import Lengths
from hone.data.frame import padding_id
from hone.data.prepare import Prepared
from hone.data.views import IGNORE_INDEX, Item
from hone.errors import HoneError
from hone.evaluation.perplexity import LOGIT_ELEMENTS
from hone.evaluation.tasks import TASKS
from hone.machine import read_cgroup, read_memory
from hone.models.build import apply_method
from hone.models.freeze import Group, groups
from hone.models.load import best_device, check_source, check_vocabulary, first_line, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Bytes that an optimizer keeps for a trained number: (multiples of the number's own size, further bytes).
OPTIMIZER_STATE = {
    "adamw_torch_fused": (2, 0),
    "adamw_torch": (2, 0),
    "adagrad": (1, 0),
    "rmsprop": (1, 0),
    "sgd": (0, 0),
    "adafactor": (0, 0),  # a row and a column of each matrix: see _optimizer_bytes
    "adamw_8bit": (0, 2),
    "paged_adamw_8bit": (0, 2),
    "paged_adamw_32bit": (0, 8),
    "lion_8bit": (0, 1),
    "lion_32bit": (0, 4),
}


@dataclass(frozen=True)
class Footprint:
    """Bytes. The parts are those at their largest; `training`, `evaluation` and `loading` are what there is at once,
    and `total` is the most of them, beside what the process holds anyway.

    trained: of the weights, those that train. activations, logits: None where the step could not be followed.
    untraced: why, then. free: what this machine has free now, for this process.
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
    batch: list[np.ndarray],
    data: Prepared | None,
) -> Shape:
    """Memory of a config's training.

    Args:
        batch: rows of the fullest micro-batch, each an array of examples (`plan.largest_batch`).
        data: needed for tasks other than causal.

    Raises:
        HoneError: the model's config cannot be read, or the method does not fit the model.
    """
    import psutil
    import torch

    from hone.training.memory import step_memory, without_memory

    device = best_device(config.train.use_cpu)
    with torch.device("meta"):
        model = _skeleton(config, tokenizer, data)
        batching = _batching(config, model, device)
    fakes = without_memory(model, device)
    if config.train.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    model.train()
    inputs = _batch(config, tokenizer, lengths, batch, data, batching)
    weights = sum(_bytes(t) for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
    trained = sum(_bytes(p) for p in model.parameters() if p.requires_grad)
    optimizer = _optimizer_bytes(config, model)
    held = weights + optimizer
    step, untraced = None, None
    repeats = 2 if config.train.gradient_accumulation_steps > 1 else 1  # the second meets the gradients of the first
    evaluation = 0
    try:
        step = step_memory(fakes, model, [inputs] * repeats, _forward(config, device), _loss(config, data))
        evaluation = held + _evaluation_bytes(config, fakes, model, lengths, device)
    except Exception as error:  # data decides the shapes of some architectures (experts): they cannot be followed
        untraced = first_line(error)
    training = max(held + trained, optimizer + step.peak if step else 0)
    loading = weights if config.model.model_type else 2 * weights  # the file's pages are held while they are copied
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
            total=max(training, evaluation, loading),
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


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _optimizer_bytes(config: Config, model: Any) -> int:
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.train.optim == "adafactor":
        return sum(4 * (sum(p.shape) if p.dim() > 1 else p.numel()) for p in trained)
    multiple, more = OPTIMIZER_STATE[config.train.optim]
    return sum(multiple * _bytes(p) + more * p.numel() for p in trained)


# ---- the model and what it is given --------------------------------------------------------------------------------


def _skeleton(config: Config, tokenizer: "PreTrainedTokenizerBase", data: Prepared | None) -> "PreTrainedModel":
    """The config's model, made where tensors have no memory."""
    import torch
    import transformers

    from hone.models.heads import label_maps
    from hone.models.load import AUTO_CLASS

    section, task = config.model, config.method.task
    labels = list(data.labels) if data is not None and task == "classification" else []
    pad = None if task == "causal" else padding_id(tokenizer)
    if section.model_name_or_path is None:
        model = load_model(section, tokenizer, seed=0, where=config.where, task=task, labels=labels, pad_token_id=pad)
        return apply_method(config, model)
    name = section.model_name_or_path
    check_source(name)
    remote = section.trust_remote_code
    try:
        about = transformers.AutoConfig.from_pretrained(
            name,
            revision=section.model_revision or "main",
            trust_remote_code=remote,
            **(label_maps(labels) if labels else {}),
        )
        model = getattr(transformers, AUTO_CLASS[task]).from_config(
            about,
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
            trust_remote_code=remote,
        )
    except Exception as error:  # OSError, ValueError, KeyError, ImportError …
        raise HoneError(
            f"cannot read the model's config: {first_line(error)}",
            where=config.where("model_name_or_path") or name,
            fix="a folder needs its config.json; a hub name needs a network, or a model that was downloaded before",
        ) from error
    if pad is not None:
        model.config.pad_token_id = pad
    check_vocabulary(model, tokenizer)
    return apply_method(config, model)


def takes(model: Any, argument: str) -> bool:
    """Whether a model's forward pass has an argument of this name; PEFT's wrapper hides it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return argument in inspect.signature(base.forward).parameters


def _batching(config: Config, model: Any, device: str) -> str:
    """The batching the engine will use, with attention by segments switched on where it would be."""
    from hone.training.attention import use_segments

    batching = config.data.batching
    if batching not in ("flat", "packed") or config.method.task != "causal":
        return "padded"
    if not takes(model, "position_ids"):
        return "padded"
    if config.train.segment_attention:
        use_segments(model, config.data.max_length, device)
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
            layout = flat if batching == "flat" else functools.partial(padded, pad_token_id=0)
            batch = layout([item for row in items for item in row])
    batch.pop("num_tokens")
    return batch


def _item(length: int, supervised: int) -> Item:
    labels = np.full(length, IGNORE_INDEX)
    labels[length - min(supervised, length - 1) :] = 0
    return {"input_ids": np.zeros(length, np.int64), "labels": labels}


# ---- the step ------------------------------------------------------------------------------------------------------


def _forward(config: Config, device: str) -> Callable[[Any, dict[str, Any]], Any]:
    """Model and batch -> logits, as the Trainer's compute_loss does it."""
    import torch

    from hone.training.loss import scored_positions

    train, task = config.train, config.method.task
    dtype = torch.bfloat16 if train.bf16 else torch.float16

    def forward(model: Any, batch: dict[str, Any]) -> Any:
        inputs = TASKS[task].inputs(model, batch)
        labels = inputs.pop("labels")
        if task == "causal" and train.scored_rows_only and takes(model, "logits_to_keep"):
            inputs["logits_to_keep"] = scored_positions(labels)
        with torch.autocast(device, dtype, enabled=train.bf16 or train.fp16):
            logits = model(**inputs).logits
        return logits.float()  # accelerate's mixed precision hands float32 out

    return forward


def _loss(config: Config, data: Prepared | None) -> Callable[[Any, Any], Any]:
    """Logits and labels -> the loss of the config's task."""
    loss = TASKS[config.method.task].loss(config, data)  # type: ignore[arg-type]  # causal needs no data
    return lambda logits, labels: loss(logits, labels, 1)


def _evaluation_bytes(config: Config, fakes: Any, model: Any, lengths: Lengths, device: str) -> int:
    """What measuring the longest validation batch holds beside the weights; 0 where the task is not causal."""
    import torch

    from hone.training.loss import token_nll
    from hone.training.memory import pass_memory

    if config.method.task != "causal" or not len(lengths.validation):
        return 0
    vocabulary = model.get_input_embeddings().weight.shape[0]
    longest = int(lengths.validation.max())
    room = max(1, min(config.eval.eval_tokens_per_batch, LOGIT_ELEMENTS // vocabulary) // longest)
    ids = torch.zeros(min(room, len(lengths.validation)), longest, dtype=torch.long)

    def measure(model: Any) -> Any:
        return token_nll(model(input_ids=ids, use_cache=False).logits, ids)

    training = model.training
    model.eval()
    try:
        return pass_memory(fakes, model, measure)
    finally:
        model.train(training)
