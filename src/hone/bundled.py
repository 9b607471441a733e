"""What comes with the package: the bundled model, and the shapes of well-known ones (`assets/shapes`).

The model has GPT-2's architecture, is pre-trained on Python (`assets/base`), and is called `hone-base`.

>>> resolve("hone-base") == str(folder()), resolve("distilgpt2")
(True, 'distilgpt2')
"""

import difflib
from importlib import resources
from pathlib import Path

NAME = "hone-base"
# The learning rates that suit it, by method: a model this small takes some twenty times what large ones do.
RATES = {"full": 1e-3, "freeze": 3e-3, "lora": 1e-2}
PLACE = ("hone", "assets", "base")  # in whatever folder hone is installed


def folder() -> Path:
    """Its folder, as any other model's: config.json, model.safetensors, tokenizer.json, README.md."""
    return Path(str(resources.files("hone"))) / "assets" / "base"


def resolve(name: str) -> str:
    """What to load for a model's name: a folder or a hub name.

    A model folder of one's own called hone-base comes first. An adapter names its base by the folder it was in: where
    that was another installation's, this one has the same.

    >>> resolve("/home/me/old/lib/python3.11/site-packages/hone/assets/base") == resolve("hone-base")
    True
    """
    given = Path(name)
    own = any((given / about).is_file() for about in ("config.json", "adapter_config.json"))
    of_another = given.parts[-3:] == PLACE and not given.is_dir()
    return str(folder()) if (name == NAME and not own) or of_another else name


def is_meant(name: str | None) -> bool:
    """Whether a model's name leads to it."""
    return name is not None and resolve(name) == str(folder())


def shape(name: str) -> Path | None:
    """A folder with the published config.json, and no weights, of a hub model that many start from: to plan with.

    >>> shape("Qwen/Qwen2-1.5B").name, shape("nobody/nothing")
    ('Qwen--Qwen2-1.5B', None)
    """
    there = Path(str(resources.files("hone"))) / "assets" / "shapes" / name.replace("/", "--")
    return there if (there / "config.json").is_file() else None


def suggest(name: str) -> str:
    """A question for whoever nearly named it, else nothing.

    >>> suggest("Hone_base"), suggest("distilgpt2")
    ('did you mean hone-base? ', '')
    """
    near = difflib.get_close_matches(name.lower(), [NAME], n=1, cutoff=0.75)
    return f"did you mean {NAME}? " if near else ""
