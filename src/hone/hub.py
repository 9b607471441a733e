"""The Hugging Face hub: is it within reach, is a model in its cache, and no minute of retries where neither is so.

>>> with no_retries("hone-bas"):                     # without a network: cache only, at once   # doctest: +SKIP
...     AutoModelForCausalLM.from_pretrained("hone-bas")
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

PATIENCE_S = 5.0
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def in_reach() -> bool:
    """Can the hub be asked at all? One connection is tried, to it or to the proxy that stands before it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    proxies, scheme = getproxies(), urlsplit(constants.ENDPOINT).scheme
    address = urlsplit(proxies.get(scheme) or proxies.get("all") or constants.ENDPOINT)
    if address.hostname is None:  # a proxy written without its scheme: for the library to make out
        return True
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), timeout=PATIENCE_S).close()
    except (OSError, ValueError):
        return False
    return True


def file_in_cache(name: str, file: str, revision: str | None = None) -> str | None:
    """The path of a model's file in the hub's cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:
        return None
    return path if isinstance(path, str) else None


def cached(name: str, revision: str | None = None, *, tokenizer: bool = True) -> bool:
    """Does the hub's cache hold all that loading a model needs: config, weights and, if wanted, a tokenizer?"""
    wanted = [("config.json",), WEIGHTS, *([TOKENIZERS] if tokenizer else [])]
    return all(any(file_in_cache(name, file, revision) for file in files) for files in wanted)


def answers(name: str, revision: str | None = None) -> bool:
    """Does the hub answer for a model? That it does not know the name is for loading to say."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not in_reach():
        return False
    try:
        hf_hub_download(name, "config.json", revision=revision)
    except LocalEntryNotFoundError:
        return False
    except Exception:  # no such repository, gated, no config.json: not a matter of the network
        return True
    return True


@contextmanager
def no_retries(name: str) -> Iterator[bool]:
    """Within it a hub name out of reach is looked for in the cache alone, at once; a folder's name changes nothing.

    Gives whether the name can be asked for.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or Path(name).is_dir() or in_reach():
        yield not constants.HF_HUB_OFFLINE
        return
    switches: list[Any] = [constants]
    if copied := sys.modules.get("datasets.config"):  # that library reads the switch once, when it is imported
        switches.append(copied)
    for switch in switches:
        switch.HF_HUB_OFFLINE = True
    try:
        yield False
    finally:
        for switch in switches:
            switch.HF_HUB_OFFLINE = False
