"""`hone demo`: the main job on one machine, offline, in minutes: the model that ships with hone learns small functions.

Config and rows are copied into the demo's folder, so that they can be read, changed and trained again by hand; held-out
functions are measured before and after, by their loss and by their unit tests.

>>> demo(Path("out/demo")).read_eval("compare")["verdict"]        # doctest: +SKIP
'better'
"""

from importlib import resources
from pathlib import Path

from hone.config.load import load_config
from hone.files import write_text_atomic
from hone.runs import Run
from hone.training.train import train

CONFIG = "demo.yaml"
FILES = (CONFIG, "functions.train.jsonl", "functions.test.jsonl")
# What LoRA changes of the config: adapters start at zero and want a higher rate.
LORA = ("method=lora", "learning_rate=4e-3")


def demo(folder: Path, method: str = "full") -> Run:
    """Train as `folder`/demo.yaml says; what is finished is not done again.

    Args:
        method: full or lora.

    Raises:
        HoneError: the folder cannot be written.
    """
    lay_out(folder)
    overrides = [] if method == "full" else [*LORA, f"output_dir={folder / 'functions-lora'}"]
    return train(load_config(folder / CONFIG, overrides))


def lay_out(folder: Path) -> None:
    """Copy the demo's config and rows into a folder; files that are there already stay as they are."""
    shipped = resources.files("hone") / "assets" / "demo"
    for name in FILES:
        if not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text_atomic(folder / name, (shipped / name).read_text(encoding="utf-8"))
