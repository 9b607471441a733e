"""What a training step holds in memory at its fullest, found by running the step without its numbers.

The model is made of fake tensors, which have a shape, a dtype and a device but no memory, and the real forward pass,
loss and backward pass run over them: every temporary that PyTorch would hold is counted while it would be held, for any
architecture, with autocast, adapters or recomputed activations. Only whole numbers (ids, positions, masks) are computed
for real, because models look at them. With a `Heap`, the gaps between blocks are counted as well. Not counted: the
interpreter and its libraries, and scratch space inside a kernel.

>>> with torch.device("meta"):                                 # doctest: +SKIP
...     model = build()
>>> fakes = without_memory(model, "cpu")                       # doctest: +SKIP
>>> counted = weights_of(fakes, model)                         # doctest: +SKIP
>>> step_memory(counted, model, batches, forward, loss, optimizer=0, accumulates=False).peak    # doctest: +SKIP
2464100352
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from hone.planning.heap import Heap

INDEXED = [getattr(torch.ops.aten, name) for name in ("index", "index_put", "index_put_", "_index_put_impl_")]
SMALLEST = 1024  # bytes of a block that a heap is asked for; smaller ones have pools of their own
REAL_ELEMENTS = 1 << 24  # whole numbers are computed for real up to this many at once


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one micro-batch. The parts are not all there at once: `peak` is less than their sum.

    gradients: of the trained weights. activations: kept by the forward pass for the backward pass. logits: the model's
    output and what the loss makes of it. peak: the most there was at one time, with weights, gradients and optimizer.
    """

    gradients: int
    activations: int
    logits: int
    peak: int


def without_memory(model: torch.nn.Module, device: str) -> FakeTensorMode:
    """Give a model that was made on the meta device fake tensors on `device` instead; ties between them stay.

    Returns the mode in which its tensors live.
    """
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, torch.Tensor] = {}
    with fakes:
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in made:
                        made[id(tensor)] = _fake_like(tensor, device)
                    store[name] = made[id(tensor)]  # type: ignore[assignment]
    return fakes


def _fake_like(tensor: torch.Tensor, device: str) -> torch.Tensor:
    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake


def weights_of(fakes: FakeTensorMode, model: torch.nn.Module, heap: Heap | None = None) -> "LiveBytes":
    """A count that begins with a model's weights and buffers."""
    counted = LiveBytes(fakes, heap)
    for tensor in [*model.parameters(), *model.buffers()]:
        counted.add(tensor)
    return counted


def step_memory(
    counted: "LiveBytes",
    model: Any,
    batches: list[dict[str, Any]],
    forward: Callable[[Any, dict[str, Any]], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    optimizer: int,
    accumulates: bool,
) -> StepMemory:
    """Run forward and backward over micro-batches one after another; the first one's step makes the optimizer's state.

    Args:
        counted: of the model's weights (`weights_of`); the optimizer's state stays counted.
        model: with the tensors of `without_memory`, in training mode.
        batches: with real whole numbers, `labels` among them.
        forward: model and inputs -> logits. loss: logits and labels -> the sum to differentiate.
        optimizer: bytes. accumulates: whether a micro-batch meets the gradients of the one before.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    n_trained = sum(parameter.numel() for parameter in trained)
    activations = logits_bytes = gradients = 0
    counted.peak = counted.now
    with counted.fakes, counted:
        for number, batch in enumerate(batches):
            start = counted.now
            logits = forward(model, batch)
            own = logits.untyped_storage().nbytes()
            activations = max(activations, counted.now - start - own)
            before = counted.now
            value = loss(logits, batch["labels"])
            logits_bytes = max(logits_bytes, own + counted.now - before)
            del logits
            value.backward()
            del value
            gradients = sum(p.grad.untyped_storage().nbytes() for p in trained if p.grad is not None)
            if number == 0:
                for parameter in trained:
                    counted.hold(optimizer * parameter.numel() // n_trained)
            if not accumulates:
                model.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)
    return StepMemory(gradients, activations, logits_bytes, counted.peak)


def pass_memory(counted: "LiveBytes", model: Any, measure: Callable[[Any], Any]) -> int:
    """Bytes that `measure(model)` holds at its fullest beside what is there already, without gradients."""
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

    Whole numbers stay real (see the module); where they meet fake tensors, they are taken for fake ones, except masks
    that choose elements, which are turned into the positions they choose.
    """

    def __init__(self, fakes: FakeTensorMode, heap: Heap | None = None) -> None:
        super().__init__()
        self.fakes, self.heap = fakes, heap
        self.sizes: dict[int, int] = {}  # storage -> bytes
        self.places: dict[int, int] = {}  # storage -> address in the heap
        self.now = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory, once for all its views."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        if self.heap is not None and self.sizes[key] >= SMALLEST:
            self.places[key] = self.heap.take(self.sizes[key])
        self.now += self.sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
        if self.heap is not None and key in self.places:
            self.heap.give(self.places.pop(key))

    def hold(self, n_bytes: int) -> None:
        """Count bytes that are never freed."""
        if self.heap is not None and n_bytes >= SMALLEST:
            self.heap.take(n_bytes)
        self.now += n_bytes
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._run(func, args, kwargs or {})
        for leaf in tree_flatten(result)[0]:
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if func is torch.ops.aten._local_scalar_dense.default and tensors[0].is_floating_point():
                return 1.0  # the one number that is looked at: the gradient that a loss begins with
            args, kwargs = self._all_fake(func, args, kwargs)
            return func(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        fake = func(*tree_map(self._fake, args), **tree_map(self._fake, kwargs))
        leaves = [leaf for leaf in tree_flatten(fake)[0] if isinstance(leaf, torch.Tensor)]
        if any(leaf.is_floating_point() or leaf.numel() > REAL_ELEMENTS for leaf in leaves):
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
