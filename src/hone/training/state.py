"""The state of an optimizer or of random generators in files that cannot run code: tensors, and JSON around them.

`torch.save` pickles, and whoever loads a pickle runs what is in it; besides, a flipped bit in one is seldom noticed.
Here `<name>.safetensors` has the tensors and `<name>.json` the structure, with a place for each of them.

>>> write_state(folder, "optimizer", optimizer.state_dict())                      # doctest: +SKIP
>>> optimizer.load_state_dict(read_state(folder, "optimizer"))                    # doctest: +SKIP
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hone.errors import HoneError
from hone.files import read_json, write_text_atomic

OPTIMIZER, SCHEDULER, SCALER, GENERATORS = "optimizer", "scheduler", "scaler", "random"


def write_state(folder: Path, name: str, value: Any) -> None:
    """Write dictionaries, lists, tuples, numbers, words, arrays and tensors; a tensor that is there twice, once.

    Raises:
        TypeError: something else is in it, which only a pickle could hold.
    """
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], str] = {}
    structure = _packed(value, tensors, known)
    save_file(tensors, folder / f"{name}.safetensors")
    write_text_atomic(folder / f"{name}.json", json.dumps(structure) + "\n")


def read_state(folder: Path, name: str) -> Any:
    """What `write_state` wrote, on the CPU.

    Raises:
        HoneError: a file is missing or damaged.
    """
    weights = folder / f"{name}.safetensors"
    try:
        return _unpacked(read_json(folder / f"{name}.json"), load_file(weights))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise HoneError(f"this checkpoint's file is damaged: {error}", where=str(weights)) from error


def _packed(value: Any, tensors: dict[str, Tensor], known: dict[tuple[Any, ...], str]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": _placed(torch.from_numpy(np.ascontiguousarray(value)), tensors, known)}
    if isinstance(value, Tensor):
        return {"tensor": _placed(value, tensors, known)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, dict):
        return {"dict": [[_packed(part, tensors, known) for part in item] for item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(part, tensors, known) for part in value]}
    raise TypeError(f"a {type(value).__name__} cannot be saved without a pickle")


def _placed(tensor: Tensor, tensors: dict[str, Tensor], known: dict[tuple[Any, ...], str]) -> str:
    """The name of a tensor in the file."""
    identity = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
    if tensor.numel() and identity in known:
        return known[identity]
    name = known[identity] = str(len(tensors))
    tensors[name] = tensor.detach().cpu().contiguous()
    return name


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {_unpacked(key, tensors): _unpacked(part, tensors) for key, part in content}
    if kind in ("list", "tuple"):
        parts = [_unpacked(part, tensors) for part in content]
        return parts if kind == "list" else tuple(parts)
    if kind == "dtype":
        if not isinstance(found := getattr(torch, content, None), torch.dtype):
            raise ValueError(f"no type of numbers: {content}")
        return found
    return tensors[content].numpy() if kind == "array" else tensors[content]


# ---- random generators -----------------------------------------------------------------------------------------------


def generators(device: torch.device) -> Any:
    """The states of all generators that a training draws from in this process."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
        "device": _device_state(device),
    }


def set_generators(states: Any, device: torch.device) -> None:
    """Bring the generators to what `generators` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["cpu"])
    if states["device"] is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device"])


def _device_state(device: torch.device) -> Tensor | None:
    return None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()
