"""A saved adapter and its base: does the one fit the other, and is the base still the one it was trained on.

An adapter fits any base of the same shape, and answers nonsense on the wrong one. So a run leaves a hash of its base
beside the adapter, and whoever loads the two together compares. Adding and training adapters is `lora.py`'s work.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hone import bundled
from hone.errors import HoneError
from hone.files import read_json
from hone.hub import WEIGHTS
from hone.manifest import file_digest
from hone.models.source import ADAPTER_WEIGHTS, BASE_FIX, COPY_AGAIN, base_of

log = logging.getLogger("hone")

BASE = "base.json"  # beside a saved adapter: which base it is for
SAMPLED_VALUES = 4096  # of each adapted weight, for the identity of a base


def adapter_error(error: Exception, folder: Path, base: str, fix: str = BASE_FIX) -> HoneError:
    """What a library's refusal of an adapter means: its file is damaged, or it is for another base."""
    for path, whose in ((folder / ADAPTER_WEIGHTS, "adapter"), (Path(base) / WEIGHTS[0], "base")):
        if (damage := _unreadable(path)) is not None:
            other = ", or use a checkpoint-N folder of the run" if whose == "adapter" else ""
            return HoneError(
                f"the {whose}'s weights are damaged: {damage}",
                where=str(path),
                fix=f"the file is cut off or was changed: copy it again{other}",
            )
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return HoneError(f"the adapter does not fit the base {base}: {reason}", where=str(folder), fix=fix)


def _unreadable(path: Path) -> Exception | None:
    """What is wrong with a file of weights that is there."""
    try:
        with safe_open(path, framework="np"):
            return None
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as damage:
        return damage


def misfit(folder: Path, key: str, found: Any, wanted: Any) -> HoneError:
    """A tensor of the adapter that has another shape than its base asks for."""
    return HoneError(
        f"the adapter does not fit its base {base_of(folder)}: {key} is {tuple(found)}, {tuple(wanted)} would fit",
        where=str(folder),
        fix=BASE_FIX,
    )


# ---- which base an adapter is for ------------------------------------------------------------------------------------


def check_base(model: Any, folder: Path, base: str, fix: str = BASE_FIX) -> bool:
    """Refuse a base of the right shape with other weights; False where the adapter does not say which it was."""
    if not (folder / BASE).is_file():
        return False
    expected = read_json(folder / BASE, COPY_AGAIN)
    if base_identity(model, getattr(torch, expected["dtype"]))["sha256"] != expected["sha256"]:
        raise HoneError(
            f"the adapter was trained on other weights than those of {_weights_of(base)}: the same shape is not enough",
            where=str(folder),
            fix=fix,
        )
    config = _config_of(base)
    if config is not None and expected.get("config", file_digest(config)) != file_digest(config):
        log.warning("%s: not the config that the adapter was trained with", config)
    return True


def _weights_of(base: str) -> str:
    """The file with a base's weights where it is a folder that has one, else its name."""
    path = Path(base) / WEIGHTS[0]
    return str(path) if path.is_file() else base


def describe_base(model: Any) -> dict[str, str]:
    """What a run leaves beside an adapter: `base_identity`, and the digest of the config of a base in a folder."""
    config = _config_of(str(next(iter(model.peft_config.values())).base_model_name_or_path))
    return {**base_identity(model), **({} if config is None else {"config": file_digest(config)})}


def _config_of(base: str) -> Path | None:
    path = Path(bundled.resolve(base)) / "config.json"
    return path if path.is_file() else None


def base_identity(model: Any, dtype: torch.dtype | None = None) -> dict[str, str]:
    """A hash of the frozen weights beside the adapter's matrices, and the dtype they were in.

    An adapter fits any base of the same shape; this tells the one it was trained on from the others. It reads a sample
    of each weight, which any further training changes.

    Args:
        dtype: round the weights to it first, to compare with a base that was loaded so.
    """
    digest = hashlib.sha256()
    found = ""
    for name, weight in adapted_weights(model):
        flat = weight.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED_VALUES)].cpu().to(dtype or weight.dtype)
        found = str(sample.dtype).removeprefix("torch.")
        digest.update(name.encode())
        digest.update(sample.float().numpy().tobytes())
    return {"sha256": digest.hexdigest(), "dtype": found}


def adapted_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and frozen weights of the layers that an adapter was added to, in the order of the network."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name.removeprefix("base_model.model."), module.base_layer.weight
