"""What to train where a hub name cannot be had: no network, and no whole copy in the hub's cache.

>>> config = with_fallback(config)              # doctest: +SKIP
distilgpt2 is not on this machine, or not whole, and the hub cannot be reached: hone-base takes its place …
"""

import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hone import bundled
from hone.config.load import load_config
from hone.config.schema import Config
from hone.config.sections.output import OutputSection
from hone.errors import HoneError
from hone.hub import answers, cached
from hone.models.inspect import max_positions_of
from hone.runs import RESOLVED

log = logging.getLogger("hone")


def with_fallback(config: Config) -> Config:
    """The config with `offline_model_name_or_path` in the place of a hub name that cannot be had; logged in one line.

    A run that began with the fallback goes on with it. What was written for the other model goes with it: its
    tokenizer, its revision, the names of the layers that LoRA adapts, and a `max_length` beyond the fallback's window.
    """
    section, fallback = config.model, config.model.offline_model_name_or_path
    name, revision = section.model_name_or_path, section.model_revision
    if fallback is None or name is None or fallback == name or Path(bundled.resolve(name)).is_dir():
        return config
    if _began_with(fallback, config.output):
        why = f"this run began without {name}"
    elif cached(name, revision, tokenizer=section.tokenizer_name_or_path is None) or answers(name, revision):
        return config
    else:
        why = f"{name} is not on this machine, or not whole, and the hub cannot be reached"
    values: dict[str, Any] = {"model_name_or_path": fallback, "tokenizer_name_or_path": None, "model_revision": None}
    values["lora_target_modules"] = "all-linear"
    window, length = _window(fallback), ""
    if window is not None and window < config.data.max_length:
        values["max_length"] = window
        length = f", with max_length={window}"
    log.warning("%s: %s takes its place%s (offline_model_name_or_path)", why, fallback, length)
    return config.changed(values)


def _began_with(fallback: str, output: OutputSection) -> bool:
    """Does the output folder hold a run of the fallback? Then its network, or the lack of one, decided already."""
    resolved = Path(output.output_dir) / RESOLVED
    if output.overwrite or not resolved.is_file():
        return False
    try:
        return load_config(resolved).model.model_name_or_path == fallback
    except HoneError:  # whoever opens the run will say so
        return False


def _window(name: str) -> int | None:
    """The positions of a model on this machine; None where its config does not say, or is not there."""
    try:
        return max_positions_of(AutoConfig.from_pretrained(bundled.resolve(name), local_files_only=True))
    except Exception:  # loading it will say what is wrong, in full
        return None
