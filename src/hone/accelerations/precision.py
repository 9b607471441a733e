"""Chooses the compute dtype: bfloat16 if a matmul benchmark shows at least 1.25 x float32 here, else float32.

A processor without bfloat16 instructions emulates them, up to hundreds of times slower (pytorch/pytorch#146508), and no
flag says for sure what a library makes of a processor; a product of two small matrices does, in milliseconds.
"""

import json
import logging
import platform
from pathlib import Path

import torch

from hone.config.checks import FP16_FIX, FP16_WHY
from hone.config.schema import Config, Where
from hone.config.sections.train import TrainSection
from hone.errors import HoneError
from hone.files import write_json_atomic
from hone.hardware import best_device, best_gflops
from hone.processes import from_primary

log = logging.getLogger("hone")

WORTH = 1.25  # times the rate of float32, or rounding is not worth it


def resolve_precision(config: Config, folder: Path) -> Config:
    """The config with `bf16: null` decided: true where the weights are float32 and bfloat16 products pay here.

    Args:
        folder: where the measurement is kept, so that a resumed run decides as the first did.

    Raises:
        HoneError: `fp16: true` without a CUDA device.
    """
    train = config.train
    refuse_fp16(train, config.where)
    if train.bf16 is not None:
        return config
    pays = config.model.dtype == "float32" and not train.fp16
    pays = pays and from_primary(lambda: bf16_pays(best_device(train.use_cpu), folder))  # one may measure otherwise
    return config.changed({"bf16": pays})


def refuse_fp16(train: TrainSection, where: Where) -> None:
    """Raise a HoneError where float16 is asked for and there is no CUDA device to compute in it."""
    if train.fp16 and (device := best_device(train.use_cpu)) != "cuda":
        what = f"fp16 needs a CUDA GPU, and this would run on {device}: {FP16_WHY}"
        raise HoneError(what, where=where("fp16"), fix=FP16_FIX)


def bf16_pays(device: str, folder: Path) -> bool:
    """Are bfloat16 products at least a quarter faster than float32 ones on this device? Measured once, then read."""
    if not has_bf16(device):
        return False
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    about = {"device": device, "name": name, "host": platform.node(), "torch": torch.__version__}
    file = folder / f"precision-{device}.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["about"] == about:
            return bool(known["bf16_pays"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    rates = product_rates(device)
    pays = rates["bfloat16"] > WORTH * rates["float32"]
    log.info(
        "precision: %.0f GFLOP/s in bfloat16, %.0f in float32: bf16 %s",
        rates["bfloat16"],
        rates["float32"],
        "true" if pays else "false",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(file, {"about": about, "bf16_pays": pays, "gflops": rates})
    except OSError as error:
        log.debug("the measurement is not kept: %s", error)
    return pays


def has_bf16(device: str) -> bool:
    """Whether bfloat16 is worth measuring: not on MPS (some systems lack it there), nor where CUDA emulates it."""
    return device == "cpu" or (device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))


def product_rates(device: str) -> dict[str, float]:
    """GFLOP/s of products in bfloat16 and in float32."""
    kinds = ("bfloat16", "float32")
    size = 256 if device == "cpu" else 2048
    return dict(zip(kinds, best_gflops([getattr(torch, kind) for kind in kinds], device, size)))
