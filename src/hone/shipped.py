"""The model that comes with hone: GPT-2's architecture, pre-trained on Python (`assets/base`). Its name is `hone-base`.

>>> named("hone-base") == str(shipped_folder()), named("distilgpt2")
(True, 'distilgpt2')
"""

from importlib import resources
from pathlib import Path

NAME = "hone-base"


def shipped_folder() -> Path:
    """Its folder, as any other model's: config.json, model.safetensors, tokenizer.json, README.md."""
    return Path(str(resources.files("hone"))) / "assets" / "base"


def named(name: str) -> str:
    """What to load for a model's name: a folder or a hub name. A folder of one's own called hone-base comes first."""
    return str(shipped_folder()) if name == NAME and not Path(name).is_dir() else name
