"""A saved adapter: its files, the base it names, and whether that base still is the one it was trained on.

An adapter fits any base of the same shape, and answers nonsense on the wrong one. So a run leaves a hash of its base
beside the adapter, and whoever loads the two together compares. Adding and training adapters is `lora.py`'s work.

>>> base_of(Path("runs/lora"))                                # doctest: +SKIP
'distilgpt2'
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError
from hone.files import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base.json"  # beside a saved adapter: which base it is for
COPY_AGAIN = "the file is damaged or was not copied whole: copy the adapter again"
SAMPLED_VALUES = 4096  # of each adapted weight, for the identity of a base
BASE_FIX = (
    "put back the base that it was trained on; or name it: hone merge RUN OUT --base BASE makes one model of both"
)


def base_of(folder: Path) -> str | None:
    """The base that an adapter says it is for: a folder or a hub name; None where it says nothing.

    Raises:
        HoneError: adapter_config.json is damaged.
    """
    about = read_json(folder / ADAPTER, COPY_AGAIN)
    if not isinstance(about, dict):
        raise HoneError("is no adapter's: it is damaged", where=str(folder / ADAPTER), fix=COPY_AGAIN)
    return about.get("base_model_name_or_path") or None


def check_adapter(folder: Path) -> str:
    """The base of an adapter that has its files.

    Raises:
        HoneError: it has no weights, or names no base.
    """
    if not (folder / WEIGHTS).is_file():
        pickled = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        raise HoneError(
            f"the adapter has no weights: expected {WEIGHTS}",
            where=str(folder),
            fix=f"found {pickled}: convert it to safetensors first (pickle is never loaded)"
            if pickled
            else "copy the weights there, or name another folder",
        )
    base = base_of(folder)
    if base is None:
        raise HoneError(
            "names no base model: it is damaged, or no adapter's",
            where=str(folder / ADAPTER),
            fix=COPY_AGAIN,
        )
    return base


def refuse_adapter(name: str) -> None:
    """Raise a HoneError if `name` is an adapter's folder: training starts from whole models."""
    folder = Path(name)
    if (folder / ADAPTER).is_file():
        raise HoneError(
            f"this is an adapter for {base_of(folder)}: it cannot be trained further as it is",
            where=name,
            fix=f"make one model of both, `hone merge {name} {name}-merged`, and train that; or train the base",
        )


def adapter_error(error: Exception, folder: Path, base: str, fix: str = BASE_FIX) -> HoneError:
    """What a library's refusal of an adapter means: its file is damaged, or it is for another base."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="np"):
            pass
    except (SafetensorError, OSError) as damage:
        return HoneError(
            f"the adapter's weights are damaged: {damage}",
            where=str(folder / WEIGHTS),
            fix="the file is cut off or was changed: copy it again, or use a checkpoint-N folder of the run",
        )
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return HoneError(f"the adapter does not fit the base {base}: {reason}", where=str(folder), fix=fix)


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
    import torch

    if not (folder / BASE).is_file():
        return False
    expected = read_json(folder / BASE, COPY_AGAIN)
    if base_identity(model, getattr(torch, expected["dtype"]))["sha256"] != expected["sha256"]:
        raise HoneError(
            f"the adapter was trained on other weights than those of {base}: the same shape is not enough",
            where=str(folder),
            fix=fix,
        )
    return True


def base_identity(model: Any, dtype: "torch.dtype | None" = None) -> dict[str, str]:
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


def adapted_weights(model: Any) -> "Iterator[tuple[str, Tensor]]":
    """Names and frozen weights of the layers that an adapter was added to, in the order of the network."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name.removeprefix("base_model.model."), module.base_layer.weight
