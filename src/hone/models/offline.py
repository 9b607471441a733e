"""What to train where a hub name cannot be had: no network, and nothing in the hub's cache.

>>> config = reachable_or_spare(config)              # doctest: +SKIP
distilgpt2 is not on this machine and the hub cannot be reached: hone-base takes its place (offline_model_name_or_path)
"""

import logging
from pathlib import Path

from hone.config.schema import Config
from hone.shipped import named

log = logging.getLogger("hone")


def reachable_or_spare(config: Config) -> Config:
    """The config with `offline_model_name_or_path` in the place of a hub name that cannot be had; said in one line.

    What was written for the other model goes with it: its tokenizer, its revision, the names of the layers that LoRA
    adapts.
    """
    section, spare = config.model, config.model.offline_model_name_or_path
    name = section.model_name_or_path
    if spare is None or name is None or spare == name or Path(named(name)).is_dir() or obtainable(name):
        return config
    update = {"model_name_or_path": spare, "tokenizer_name_or_path": None, "model_revision": None}
    log.warning(
        "%s is not on this machine and the hub cannot be reached: %s takes its place (offline_model_name_or_path)",
        name,
        spare,
    )
    return config.model_copy(
        update={
            "model": section.model_copy(update=update),
            "method": config.method.model_copy(update={"lora_target_modules": "all-linear"}),
        }
    )


def obtainable(name: str) -> bool:
    """Is a hub name in the cache, or within reach? A name that the hub does not know is for loading to say."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        hf_hub_download(name, "config.json")
    except LocalEntryNotFoundError:
        return False
    except Exception:  # no such repository, gated, no config.json: not a matter of the network
        return True
    return True
