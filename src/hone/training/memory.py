"""What a training step holds in memory at its fullest, found by running the step without its numbers.

The model is made of fake tensors, which have a shape, a dtype and a device but no memory, and the real forward pass,
loss and backward pass run over them: every temporary that PyTorch would hold is counted while it would be held, for any
architecture, with autocast, adapters or recomputed activations. Only whole numbers (ids, positions, masks) are computed
for real, because models look at them. Not counted: the interpreter and its libraries, scratch space inside a kernel,
and gaps between blocks in the allocator.

>>> with torch.device("meta"):                                 # doctest: +SKIP
...     model = build()
>>> fakes = without_memory(model, "cpu")                       # doctest: +SKIP
>>> step_memory(fakes, model, batches, loss).peak              # doctest: +SKIP
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

INDEXED = [getattr(torch.ops.aten, name) for name in ("index", "index_put", "index_put_", "_index_put_impl_")]
REAL_ELEMENTS = 1 << 24  # whole numbers are computed for real up to this many at once


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one micro-batch. The parts are not all there at once: `peak` is less than their sum.

    weights: all of them, buffers too. gradients: of the trained ones. activations: kept by the forward pass for the
    backward pass. logits: the model's output and what the loss makes of it. peak: the most there was at one time,
    weights and gradients with it, without the optimizer.
    """

    weights: int
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


def step_memory(
    fakes: FakeTensorMode,
    model: Any,
    batches: list[dict[str, Any]],
    forward: Callable[[Any, dict[str, Any]], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> StepMemory:
    """Run forward and backward over the micro-batches one after another, gradients kept between them.

    Args:
        model: with the tensors of `fakes` (`without_memory`), in training mode.
        batches: with real whole numbers, `labels` among them.
        forward: model and inputs -> logits. loss: logits and labels -> the sum to differentiate.
    """
    counted = LiveBytes(fakes)
    for tensor in [*model.parameters(), *model.buffers()]:
        counted.add(tensor)
    weights = counted.now
    activations = logits_bytes = 0
    with fakes, counted:
        for batch in batches:
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
    gradients = sum(p.grad.untyped_storage().nbytes() for p in model.parameters() if p.grad is not None)
    for parameter in model.parameters():
        parameter.grad = None
    return StepMemory(weights, gradients, activations, logits_bytes, counted.peak)


def pass_memory(fakes: FakeTensorMode, model: Any, measure: Callable[[Any], Any]) -> int:
    """Bytes that `measure(model)` holds at its fullest beside the weights, without gradients."""
    counted = LiveBytes(fakes)
    for tensor in [*model.parameters(), *model.buffers()]:
        counted.add(tensor)
    weights = counted.now
    with fakes, counted, torch.no_grad():
        measure(model)
    return counted.peak - weights


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is active, for as long as anything refers to them.

    Whole numbers stay real (see the module); where they meet fake tensors, they are taken for fake ones, except masks
    that choose elements, which are turned into the positions they choose.
    """

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self.fakes = fakes
        self.sizes: dict[int, int] = {}  # storage -> bytes
        self.now = self.peak = 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory, once for all its views."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += self.sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._run(func, args, kwargs or {})
        for leaf in tree_flatten(result)[0]:
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
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
