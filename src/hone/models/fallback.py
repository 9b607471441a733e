"""What to train where a hub name cannot be had (no network, and no whole copy in the hub's cache), and how long.

>>> config = with_fallback(config)              # doctest: +SKIP
distilgpt2 is not on this machine, or not whole, and the hub cannot be reached: hone-base takes its place …
"""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig

from hone import bundled
from hone.config.load import load_config
from hone.config.schema import Config
from hone.config.sections.model import ModelSection
from hone.config.sections.output import OutputSection
from hone.errors import HoneError
from hone.hub import answers, cached, no_retries
from hone.models.inspect import max_positions_of
from hone.models.source import ADAPTER, base_of
from hone.runs import RESOLVED

log = logging.getLogger("hone")


def with_fallback(config: Config) -> Config:
    """The config with a model that can be had, and a `max_length` that the model has positions for.

    `offline_model_name_or_path` takes the place of a hub name that cannot be had; logged in one line. A run that began
    with the fallback goes on with it. What was written for the other model goes with it: its tokenizer, its revision,
    the names of the layers that LoRA adapts, and a `max_length` beyond the fallback's window.
    """
    values = _replaced(config.model, config.output, config.data.max_length)
    if not values and not config.is_given("max_length"):
        values = _within(config.model, config.data.max_length)
    return config.changed(values) if values else config


def _replaced(section: ModelSection, output: OutputSection, max_length: int) -> dict[str, Any]:
    """What changes with the fallback in the place of the model; nothing where that can be had."""
    name, revision, fallback = section.model_name_or_path, section.model_revision, section.offline_model_name_or_path
    if fallback is None or name is None or fallback == name or Path(bundled.resolve(name)).is_dir():
        return {}
    if _began_with(fallback, output):
        why = f"this run began without {name}"
    elif cached(name, revision, tokenizer=section.tokenizer_name_or_path is None) or answers(name, revision):
        return {}
    else:
        why = f"{name} is not on this machine, or not whole, and the hub cannot be reached"
    values: dict[str, Any] = {"model_name_or_path": fallback, "tokenizer_name_or_path": None, "model_revision": None}
    values["lora_target_modules"] = "all-linear"
    window, length = _window(fallback, None, False), ""
    if window is not None and window < max_length:
        values["max_length"] = window
        length = f", with max_length={window}"
    log.warning("%s: %s takes its place%s (offline_model_name_or_path)", why, fallback, length)
    return values


def _within(section: ModelSection, max_length: int) -> dict[str, int]:
    """The model's window as `max_length`, if the default is longer; logged in one line."""
    if section.model_name_or_path is None:
        window = max_positions_of(SimpleNamespace(**section.config_overrides))
    else:
        window = _window(section.model_name_or_path, section.model_revision, section.trust_remote_code)
    if window is None or window >= max_length:
        return {}
    log.warning("max_length=%d: the model has no more positions, and no max_length is given", window)
    return {"max_length": window}


def _began_with(fallback: str, output: OutputSection) -> bool:
    """Does the output folder hold a run of the fallback? Then its network, or the lack of one, decided already."""
    resolved = Path(output.output_dir) / RESOLVED
    if output.overwrite or not resolved.is_file():
        return False
    try:
        return load_config(resolved).model.model_name_or_path == fallback
    except HoneError:  # whoever opens the run will say so
        return False


def _window(name: str, revision: str | None, trust_remote_code: bool) -> int | None:
    """The positions of a model; None where its config does not say, or cannot be had."""
    folder = bundled.resolve(name)
    try:
        if (Path(folder) / ADAPTER).is_file():
            folder = bundled.resolve(str(base_of(Path(folder))))
        with no_retries(folder):
            config = AutoConfig.from_pretrained(
                folder, revision=revision or "main", trust_remote_code=trust_remote_code
            )
        return max_positions_of(config)
    except Exception:  # loading it will say what is wrong, in full
        return None
