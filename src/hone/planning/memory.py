"""Peak memory of a training, found by taking its steps without numbers: the real engine on fake tensors.

The config's model is built without weights and gets the accelerations, collator, loss and optimizer of the run
(`training.setup.build_engine`). Fake tensors have a shape, a dtype and a device but no memory; every temporary that
PyTorch would hold is counted while it would be held, for any architecture, with autocast, adapters or recomputed
activations. Only whole numbers (ids, positions, masks) are computed for real, because models look at them. Not counted:
the interpreter and its libraries, and scratch space inside a kernel.

>>> engine = engine_without_weights(config, task, tokenizer, data)               # doctest: +SKIP
>>> footprint(engine, config, task, data).total                                  # doctest: +SKIP
3120562176
"""

import math
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from transformers import PreTrainedTokenizerBase
from transformers.training_args import OptimizerNames

from hone.accelerations.attach import Attached
from hone.config.schema import Config
from hone.data.batches import EpochBatches, by_length, padded
from hone.data.prepare import Prepared
from hone.errors import first_line
from hone.hardware import read_cgroup, read_memory
from hone.metrics.losses import LOGIT_ELEMENTS
from hone.models.build import build_model
from hone.runs import Run
from hone.tasks.task import Task
from hone.training.arguments import training_arguments
from hone.training.setup import build_engine
from hone.training.trainer import HoneTrainer

INDEXED = [getattr(torch.ops.aten, name) for name in ("index", "index_put", "index_put_", "_index_put_impl_")]
DEVICE_OF = torch.ops.prim.device.default
REAL_ELEMENTS = 1 << 24  # whole numbers are computed for real up to this many at once
EPOCHS_LOOKED_AT = 8  # for the fullest micro-batch: later epochs draw from the same examples
# Bytes for each trained number of the optimizers whose kernels (bitsandbytes) know no fake tensors.
STATE_BYTES = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "paged_adamw_32bit": 8, "lion_8bit": 1, "lion_32bit": 4}


@dataclass(frozen=True)
class Footprint:
    """Bytes. The parts are those at their largest; `training`, `evaluation` and `loading` are what there is at once,
    and `total` is the most of them and the gaps, on top of what the process holds anyway.

    trained: of the weights, those that train. activations, logits: None where the step could not be followed.
    untraced: why, then. gaps: what one phase has freed and the other cannot use, as its blocks are of other sizes.
    free: what this machine has free now, for this process.

    Of several processes (`group.py`) each needs this; `here` of them are on this machine, and share its memory where
    they are `on_cpu`. gathered: whole weights and gradients during a pass, where they are cut. copied: the whole copy
    that the first process then keeps in the machine's memory. sent: what each sends in a step.
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
    processes: int = 1
    here: int = 1
    on_cpu: bool = False
    gathered: int = 0
    copied: int = 0
    sent: int = 0

    @property
    def needed(self) -> int:
        """Of what is free: a GPU for each process, or this machine's memory for all of them."""
        if self.here == 1 or not self.on_cpu:
            return self.total
        return self.here * self.total + (self.here - 1) * self.process + self.copied

    @property
    def fits(self) -> bool:
        return self.needed <= self.free

    @property
    def fullest(self) -> str:
        """When the most is held: training, evaluation or loading."""
        return max(("training", "evaluation", "loading"), key=lambda name: getattr(self, name))


def engine_without_weights(
    config: Config, task: Task, tokenizer: PreTrainedTokenizerBase, data: Prepared
) -> HoneTrainer:
    """The engine of a run, on a model of fake tensors; nothing of the model is read but its config.

    Raises:
        HoneError: the model's config cannot be read, or the method does not fit the model.
    """
    config = config.changed({"report_to": "none", "torch_compile": False})
    with torch.device("meta"):
        model = build_model(config, task.model, tokenizer, data.train.outputs, weights=False)
    with tempfile.TemporaryDirectory() as folder:  # the Trainer makes its output folder
        run = Run(Path(folder))
        args = training_arguments(config.train, run, has_validation=len(data.validation) > 0)
        without_memory(model, args.device.type)
        return build_engine(run, config, task, args, tokenizer, model, data)


def footprint(engine: HoneTrainer, config: Config, task: Task, data: Prepared) -> Footprint:
    """Memory of the training that `engine` (`engine_without_weights`) would do."""
    model: Any = engine.model
    device = engine.args.device.type
    weights = sum(_bytes(t) for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(map(_bytes, trained))
    step, untraced, evaluation = None, None, 0
    try:
        counted = LiveBytes(model)
        measure = _evaluation(engine, config, task, data) if len(data.validation) else None
        if measure is not None and config.eval.eval_base:
            evaluation = counted.now + pass_memory(counted, model, measure)
        attached, train = engine.attached, config.train
        batches = fullest_batches(attached, train.per_device_train_batch_size, train.seed, train.num_train_epochs)
        step = step_memory(
            counted,
            engine,
            [attached.collate([attached.dataset[i] for i in rows]) for rows in batches],
            first_counts=not within(attached, *batches) if task.token_rows else True,
        )
        if measure is not None:  # with the optimizer, as in the middle of a training
            evaluation = weights + step.optimizer + pass_memory(counted, model, measure)
    except Exception as error:  # data decides the shapes of some architectures (experts): they cannot be followed
        untraced = first_line(error)
    optimizer = step.optimizer if step else 2 * gradients
    training = max(weights + optimizer + gradients, step.peak if step else 0)
    loading = weights if config.model.model_type else 2 * weights  # the file's pages are held while they are copied
    # glibc's heap grows by what steps and evaluations take together, not by the larger of both (`plan_accuracy.py`)
    gaps = max(0, min(training, evaluation) - weights - optimizer) if device == "cpu" else 0
    return Footprint(
        weights=weights,
        trained=gradients,
        gradients=step.gradients if step else gradients,
        optimizer=optimizer,
        activations=step.activations if step else None,
        logits=step.logits if step else None,
        training=training,
        evaluation=evaluation,
        loading=loading,
        gaps=gaps,
        total=max(loading, max(training, evaluation) + gaps),
        free=free_memory(device),
        process=psutil.Process().memory_info().rss,
        untraced=untraced,
    )


def free_memory(device: str) -> int:
    """Bytes that are free on the GPU, or for this process on the machine and in its control group."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free, limit = read_memory()[1], read_cgroup().memory_free_bytes
    return free if limit is None else min(free, limit)


def fullest_batches(attached: Attached, size: int, seed: int, epochs: float) -> list[list[int]]:
    """Rows of the first micro-batch that will be drawn, and of the one with the most tokens.

    The sampler is a function of seed and epoch, so these are the very batches of the run.
    """
    batches = EpochBatches(len(attached.dataset), size, seed)
    first = fullest = next(iter(batches))
    for epoch in range(min(EPOCHS_LOOKED_AT, math.ceil(epochs))):
        batches.set_epoch(epoch)
        fullest = max([fullest, *batches], key=attached.n_tokens)
    return [first, fullest]


def within(attached: Attached, one: list[int], other: list[int]) -> bool:
    """Whether each tensor of a step on the rows `one` is at most as large as on the rows `other`.

    Each example of the one is matched with a longer one of the other; there are no more labels to score, either.
    """
    if attached.layout == "packed" or attached.cache is not None or len(one) > len(other):
        return False
    if attached.micro_batch_tokens is not None and attached.n_tokens(other) > attached.micro_batch_tokens:
        return False
    lengths = [sorted((int(attached.dataset.lengths[i]) for i in rows), reverse=True) for rows in (one, other)]
    scored = [sum(int((attached.dataset[i]["labels"] >= 0).sum()) for i in rows) for rows in (one, other)]
    return all(a <= b for a, b in zip(*lengths)) and scored[0] <= scored[1]


def _evaluation(engine: HoneTrainer, config: Config, task: Task, data: Prepared) -> Callable[[Any], Any]:
    """What measures the largest batch of validation items. Generated samples are not looked at."""
    model, lengths = engine.model, data.validation.lengths
    budget = config.eval.eval_tokens_per_batch
    if model.get_output_embeddings() is not None:  # there the vocabulary's logits fill the memory first
        budget = min(budget, LOGIT_ELEMENTS // model.get_input_embeddings().weight.shape[0])
    chosen = max(by_length(lengths, budget), key=lambda rows: len(rows) * int(lengths[rows[0]]))
    items, loss = [data.validation[int(i)] for i in chosen], task.loss(config.method, data)
    batch = padded(items, pad_token_id=0) if task.token_rows else engine.attached.collate(items)
    del batch["num_tokens"]
    if task.token_rows:
        batch.pop("attention_mask", None)  # a causal model never looks right

    def measure(model: Any) -> Any:
        inputs = task.inputs(model, dict(batch))
        labels = inputs.pop("labels")
        return loss(model(**inputs).logits, labels, 1)

    return measure


# ---- a step, without numbers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one micro-batch. The parts are not all there at once: `peak` is less than their sum.

    gradients: of the trained weights. activations: kept by the forward pass for the backward pass. logits: the model's
    output and what the loss makes of it. optimizer: its state. peak: the most there was at one time, with the weights.
    """

    gradients: int
    activations: int
    logits: int
    optimizer: int
    peak: int


def without_memory(model: torch.nn.Module, device: str) -> None:
    """Give a model that was made on the meta device fake tensors on `device` instead; ties between them stay."""
    made: dict[int, torch.Tensor] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in made:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                        is_weight = isinstance(tensor, torch.nn.Parameter)
                        made[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
                    store[name] = made[id(tensor)]  # type: ignore[assignment]


def step_memory(
    counted: "LiveBytes", engine: HoneTrainer, batches: list[dict[str, Any]], *, first_counts: bool = True
) -> StepMemory:
    """Train on micro-batches one after another, as the engine does, and step the optimizer after each.

    Of a micro-batch that goes forward in pieces, the largest is looked at; where gradients are accumulated, it meets
    those of the batch before.

    Args:
        counted: of the engine's model (`without_memory`). batches: as collated.
        first_counts: False where a later batch needs more of everything, and the gradients that the first one leaves
            are all that is needed of it.
    """
    model: Any = engine.accelerator.prepare_model(engine.model, device_placement=False)  # mixed precision
    if engine.args.gradient_checkpointing:
        engine.model.gradient_checkpointing_enable(engine.args.gradient_checkpointing_kwargs)
    trained = [p for p in model.parameters() if p.requires_grad]
    pieces = [engine.attached.pieces({k: v for k, v in batch.items() if k != "num_tokens"}) for batch in batches]
    accumulates = engine.args.gradient_accumulation_steps > 1 or any(len(parts) > 1 for parts in pieces)
    activations = logits = gradients = start = 0
    plain: Any = engine.compute_loss_func

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        nonlocal activations, logits
        own, before = outputs.logits.untyped_storage().nbytes(), counted.now
        activations = max(activations, before - start - own)
        value: torch.Tensor = plain(outputs, labels, num_items_in_batch)
        logits = max(logits, own + counted.now - before)
        return value

    engine.compute_loss_func = loss
    counted.peak = counted.now
    per_number = STATE_BYTES.get(OptimizerNames(engine.args.optim).value)
    state = 0 if per_number is None else per_number * sum(p.numel() for p in trained)
    with counted.fakes, counted:
        optimizer = engine.create_optimizer() if per_number is None else None
        for number, parts in enumerate(pieces):
            start = counted.now
            if number > 0 or first_counts:
                engine.training_step(model, max(parts, key=lambda part: int(part["input_ids"].numel())), 1)
            else:
                for p in trained:
                    p.grad = torch.zeros_like(p)
            gradients = sum(p.grad.untyped_storage().nbytes() for p in trained if p.grad is not None)
            if engine.args.max_grad_norm > 0:
                engine.accelerator.clip_grad_norm_(model.parameters(), engine.args.max_grad_norm)
            if optimizer is not None:
                optimizer.step()
            elif number == 0:
                counted.hold(state)
            if not accumulates:
                model.zero_grad()
    model.zero_grad()
    if optimizer is not None:  # without the counters of steps
        kept = [t for of_one in optimizer.state.values() for t in of_one.values()]
        state = sum(_bytes(t) for t in kept if isinstance(t, torch.Tensor) and t.dim())
    return StepMemory(gradients, activations, logits, state, counted.peak)


def pass_memory(counted: "LiveBytes", model: Any, measure: Callable[[Any], Any]) -> int:
    """Bytes that `measure(model)` holds at its fullest on top of what is there already, without gradients."""
    before = counted.peak = counted.now
    training = model.training
    model.eval()
    try:
        with counted.fakes, counted, torch.no_grad():
            measure(model)
    finally:
        model.train(training)
    return counted.peak - before


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is active, for as long as anything refers to them.

    It begins with the weights and buffers of a model of fake tensors. Whole numbers stay real (see the module); where
    they meet fake tensors, they are taken for fake ones, except masks that choose elements, which are turned into the
    positions they choose.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        held: list[Any] = [*model.parameters(), *model.buffers()]
        self.fakes: FakeTensorMode = held[0].fake_mode
        self.sizes: dict[int, int] = {}  # storage -> bytes
        self.now = self.peak = 0
        for tensor in held:
            self.add(tensor)

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory, once for all its views."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.hold(self.sizes[key])
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)

    def hold(self, n_bytes: int) -> None:
        """Count bytes that no tensor stands for."""
        self.now += n_bytes
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is DEVICE_OF:  # more than every second call, and it makes nothing
            return func(*args, **(kwargs or {}))
        result = self._run(func, args, kwargs or {})
        for tensor in _tensors_in(result):
            self.add(tensor)
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [*_tensors_in(args), *_tensors_in(kwargs)]
        n_fakes = sum(isinstance(tensor, FakeTensor) for tensor in tensors)
        if n_fakes:
            if func is torch.ops.aten._local_scalar_dense.default and tensors[0].is_floating_point():
                return 1.0  # the one number that is looked at: the gradient that a loss begins with
            if n_fakes < len(tensors):
                args, kwargs = self._all_fake(func, args, kwargs)
            return func(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        fake = func(*tree_map(self._fake, args), **tree_map(self._fake, kwargs))
        if any(leaf.is_floating_point() or leaf.numel() > REAL_ELEMENTS for leaf in _tensors_in(fake)):
            return fake
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _all_fake(self, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if func.overloadpacket in INDEXED:
            args = (args[0], self._positions(args[1]), *args[2:])
        return tree_map(self._fake, args), tree_map(self._fake, kwargs)

    def _positions(self, indices: Any) -> list[Any]:
        """Boolean masks as the positions they choose: how many is all that a fake tensor needs to know."""
        found: list[Any] = []
        for index in indices:
            if isinstance(index, torch.Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor):
                with unset_fake_temporarily():
                    found += list(torch.nonzero(index, as_tuple=True))
            else:
                found.append(index)
        return found

    def _fake(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
            return self.fakes.from_tensor(leaf)
        return leaf


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors among a call's arguments or results, in lists, tuples and dictionaries; torch's own way is slow."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors_in(one)
    elif isinstance(value, dict):
        yield from _tensors_in([*value.values()])


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
