"""Sharding (`sharding: fsdp2`): each process holds a part of every weight, its gradient and the optimizer's state.

PyTorch's `fully_shard` by hand, block by block: a block's weights are put together for its pass, and its gradients are
summed and cut again after it. Accelerate's way there ignores CPUs in silence. What is written, measured and loaded is
always whole, so that a checkpoint does not know of it: the primary keeps a copy of the model for that.

>>> shard(model)                                                                       # doctest: +SKIP
>>> optimizer.load_state_dict(cut_like(whole_state(optimizer.state_dict()), optimizer)) # doctest: +SKIP
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from hone.config.sections.launch import LaunchSection
from hone.config.sections.train import TrainSection
from hone.errors import HoneError
from hone.models.inspect import unwrapped
from hone.processes import world

WHOLE_MATRICES = ("muon", "adafactor", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "lion_32bit")


def is_sharded(launch: LaunchSection) -> bool:
    """Whether there is anything to share: one process holds everything in any case."""
    return launch.sharding == "fsdp2" and world() > 1


def sharding_refused(train: TrainSection) -> str | None:
    """What of a training does not go with shards; None if all of it does."""
    if train.optim in WHOLE_MATRICES:
        return f"optim: {train.optim} looks at whole matrices, and a shard is a part of one"
    if train.fp16:
        return "the loss scaling of fp16 looks at all gradients at once"
    if train.torch_compile:
        return "torch_compile translates the model before it is cut"
    return None


def shard(model: PreTrainedModel) -> None:
    """Cut every parameter into as many parts as there are processes.

    Gradients become the mean over them (gloo knows no other), so a loss is to be multiplied by their number.

    Raises:
        HoneError: a parameter could not be cut.
    """
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (world(),))
    modules: list[Any] = [*blocks_of(unwrapped(model)), model]
    for module in modules:
        fully_shard(module, mesh=mesh)
    whole = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise HoneError(f"sharding: fsdp2 cannot cut {whole[0]}", fix="leave sharding out")


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The transformer blocks, of all stacks."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    return [block for stack in outer for block in stack if any(True for _ in block.parameters())]


def whole_state(state: Any) -> Any:
    """A state of dictionaries, lists and tensors with every shard put together; all processes call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {key: whole_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value) for value in state)
    return state


def cut_like(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole optimizer's state, cut as the parameters are that it belongs to."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    cut = {
        number: {
            name: distribute_tensor(value.to(p.device), p.device_mesh, p.placements)
            if isinstance(value, torch.Tensor) and value.shape == p.shape and value.dim()
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
        for p in [parameters[int(number)]]
    }
    return {**state, "state": cut}


def clip(model: nn.Module, max_norm: float) -> torch.Tensor:
    """Clip the gradients to a norm, that of all shards together; returns it as it was."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
