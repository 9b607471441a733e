"""What to train where a hub name cannot be had (no network, and no whole copy in the hub's cache), and how long.

check, prepare, plan, train and repeat ask here first, so that all speak of the same model and the same settings.

>>> config = with_fallback(config)              # doctest: +SKIP
distilgpt2 is not on this machine, or not whole, and the hub cannot be reached: hone-base takes its place, with …
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone import bundled
from hone.config.checks import bundled_settings
from hone.config.load import KEYWORD, load_config
from hone.config.overrides import WHERE
from hone.config.schema import Config
from hone.config.sections.model import ModelSection
from hone.config.sections.output import OutputSection
from hone.errors import HoneError, placed
from hone.hub import TOKENIZERS, WEIGHTS, answers, cached, file_in_cache
from hone.models.source import ADAPTER, POSITIONS, base_of, check_source
from hone.runs import RESOLVED

log = logging.getLogger("hone")


def with_fallback(config: Config, *, to_train: bool = True) -> Config:
    """The config with a model that can be had, and a `max_length` that the model has positions for.

    `offline_model_name_or_path` takes the place of a hub name that cannot be had; logged in one line. A run that began
    with the fallback goes on with it. What was written for the other model goes with it: its tokenizer, its revision,
    the names of the layers that LoRA adapts, a `max_length` beyond the fallback's window, and, where the fallback is
    the bundled model, a learning rate that was given neither on the command line nor in Python's call.

    Raises:
        HoneError: to be trained is a hub name without a fallback, of which nothing is here, and there is no network.
    """
    section, method = config.model, config.method
    if section.offline_model_name_or_path is None and to_train:
        with placed(config.where("model_name_or_path")):
            _refuse_out_of_reach(section, bundled_settings(method, config.data.column_mapping))
    why = _replaced(section, config.output)
    if why is None:
        within = {} if config.is_given("max_length") else _within(section, config.data.max_length)
        return config.changed(within) if within else config
    fallback = str(section.offline_model_name_or_path)
    chosen = config.where("learning_rate") in (WHERE, KEYWORD)
    rate = None if chosen else config.train.learning_rate
    own = _own_settings(fallback, method.method, rate, config.data.max_length)
    listed = " and ".join(f"{leaf}={value:g}" for leaf, value in own.items())
    place = f"{fallback} takes its place{', with ' if own else ''}{listed}"
    log.warning("%s: %s (offline_model_name_or_path)", why, place)
    others = {"tokenizer_name_or_path": None, "model_revision": None, "lora_target_modules": "all-linear"}
    return config.changed({"model_name_or_path": fallback, **others, **own})


def planned_shape(section: ModelSection) -> dict[str, str | None] | None:
    """What to change of a config to plan a model whose weights are not here; None where they are, or nothing is known.

    A folder with config.json alone will do, and a hub name whose shape comes with the package, unless it has a
    fallback: that is what would be trained. Without a tokenizer of its own the bundled one counts the lengths.
    """
    name = section.model_name_or_path
    folder = Path(bundled.resolve(name)) if name else None
    if folder is None or name is None:
        return None
    if not folder.is_dir():
        known = bundled.shape(name)
        if known is None or cached(name, section.model_revision) or answers(name, section.model_revision):
            return None
        if section.offline_model_name_or_path is not None:
            log.warning("offline_model_name_or_path=null plans the published shape of %s instead", name)
            return None
        folder = known
    elif any((folder / file).is_file() for file in (*WEIGHTS, ADAPTER)) or not (folder / "config.json").is_file():
        return None
    changes: dict[str, str | None] = {"model_name_or_path": str(folder), "model_revision": None}
    own = any((folder / file).is_file() for file in TOKENIZERS)
    if section.tokenizer_name_or_path is None and not own:
        changes["tokenizer_name_or_path"] = bundled.NAME
    counted = f"; lengths are counted with {bundled.NAME}'s tokenizer" if "tokenizer_name_or_path" in changes else ""
    log.warning("the weights of %s are not here: planned from its config.json%s", name, counted)
    return changes


def _replaced(section: ModelSection, output: OutputSection) -> str | None:
    """Why the fallback takes the place of the model; None where it does not."""
    name, revision, fallback = section.model_name_or_path, section.model_revision, section.offline_model_name_or_path
    if fallback is None or name is None or fallback == name or Path(bundled.resolve(name)).is_dir():
        return None
    if _began_with(fallback, output):
        return f"this run began without {name}"
    if cached(name, revision, tokenizer=section.tokenizer_name_or_path is None) or answers(name, revision):
        return None
    return f"{name} is not on this machine, or not whole, and the hub cannot be reached"


def _own_settings(fallback: str, method: str, rate: float | None, max_length: int) -> dict[str, float]:
    """What the fallback wants otherwise than the model it stands in for. rate: None where it is the user's choice."""
    own: dict[str, float] = {}
    if rate is not None and bundled.is_meant(fallback) and rate != bundled.RATES[method]:
        own["learning_rate"] = bundled.RATES[method]
    window = _window(fallback, None)
    if window is not None and window < max_length:
        own["max_length"] = window
    return own


def _within(section: ModelSection, max_length: int) -> dict[str, int]:
    """The model's window as `max_length`, if the default is longer; logged in one line."""
    name = section.model_name_or_path
    window = _positions(section.config_overrides) if name is None else _window(name, section.model_revision)
    if window is None or window >= max_length:
        return {}
    log.warning("max_length=%d: the model has no more positions, and no max_length is given", window)
    return {"max_length": window}


def _refuse_out_of_reach(section: ModelSection, instead: list[str]) -> None:
    """A hub name of which not even the config is here, and without a network."""
    name, revision = section.model_name_or_path, section.model_revision
    if name is None or Path(bundled.resolve(name)).is_dir():
        return
    check_source(name)
    if file_in_cache(name, "config.json", revision) is None and not answers(name, revision):
        raise HoneError(
            f"{name} is not on this machine, and the hub cannot be reached",
            fix=f"{bundled.suggest(name)}without a network there is the bundled model: {' '.join(instead)}",
        )


def _began_with(fallback: str, output: OutputSection) -> bool:
    """Does the output folder hold a run of the fallback? Then its network, or the lack of one, decided already."""
    resolved = Path(output.output_dir) / RESOLVED
    if output.overwrite or not resolved.is_file():
        return False
    try:
        return load_config(resolved).model.model_name_or_path == fallback
    except HoneError:  # whoever opens the run will say so
        return False


def _window(name: str, revision: str | None) -> int | None:
    """The positions of a model; None where its config does not say, or cannot be had."""
    folder = Path(bundled.resolve(name))
    try:
        if (folder / ADAPTER).is_file():
            folder = Path(bundled.resolve(str(base_of(folder))))
        path: str | None = str(folder / "config.json")
        if not folder.is_dir():
            path = file_in_cache(name, "config.json", revision)
            if path is None and answers(name, revision):
                path = file_in_cache(name, "config.json", revision)
        return _positions(json.loads(Path(path).read_text(encoding="utf-8"))) if path else None
    except (OSError, ValueError, HoneError):  # loading it will say what is wrong, in full
        return None


def _positions(about: Mapping[str, Any]) -> int | None:
    return next((about[key] for key in POSITIONS if isinstance(about.get(key), int) and about[key] > 0), None)
