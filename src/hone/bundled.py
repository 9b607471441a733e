"""The model that comes with hone: GPT-2's architecture, pre-trained on Python (`assets/base`). Its name is `hone-base`.

>>> named("hone-base") == str(shipped_folder()), named("distilgpt2")
(True, 'distilgpt2')
"""

import difflib
from importlib import resources
from pathlib import Path

NAME = "hone-base"
PLACE = ("hone", "assets", "base")  # in whatever folder hone is installed


def shipped_folder() -> Path:
    """Its folder, as any other model's: config.json, model.safetensors, tokenizer.json, README.md."""
    return Path(str(resources.files("hone"))) / "assets" / "base"


def named(name: str) -> str:
    """What to load for a model's name: a folder or a hub name.

    A model folder of one's own called hone-base comes first. An adapter names its base by the folder it was in: where
    that was another installation's, this one has the same.

    >>> named("/home/me/old/lib/python3.11/site-packages/hone/assets/base") == named("hone-base")
    True
    """
    folder = Path(name)
    if name == NAME:
        return name if any((folder / about).is_file() for about in ("config.json", "adapter_config.json")) else _here()
    return _here() if folder.parts[-3:] == PLACE and not folder.is_dir() else name


def meant(name: str) -> str:
    """A question for whoever nearly named it, else nothing.

    >>> meant("Hone_base"), meant("distilgpt2")
    ('did you mean hone-base? ', '')
    """
    near = difflib.get_close_matches(name.lower(), [NAME], n=1, cutoff=0.75)
    return f"did you mean {NAME}? " if near else ""


def _here() -> str:
    return str(shipped_folder())
