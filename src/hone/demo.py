"""`hone demo`: the main job on one machine, offline, in minutes: the bundled model learns small functions.

Config and rows are copied into the demo's folder, so that they can be read, changed and trained again by hand; held-out
functions are measured before and after, by their loss and by their unit tests.

>>> demo(Path("out/demo")).comparison.verdict        # doctest: +SKIP
'better'
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from hone.bundled import RATES
from hone.config.load import load_config
from hone.files import disk_errors, write_text_atomic
from hone.runs import Run
from hone.training.train import train

CONFIG = "demo.yaml"
FILES = (CONFIG, "functions.train.jsonl", "functions.test.jsonl")
ELSEWHERE = "hone demo --output FOLDER"
# What LoRA changes of the config: adapters start at zero and want a higher rate.
LORA = ("method=lora", f"learning_rate={RATES['lora']:g}")


def demo(folder: Path, method: str = "full", settings: Sequence[str] = ()) -> Run:
    """Train as `folder`/demo.yaml says; what is finished is not done again.

    Args:
        method: full or lora. settings: `key=value`, over those of the config.

    Raises:
        HoneError: the folder cannot be written.
    """
    lay_out(folder)
    lora = [] if method == "full" else [*LORA, f"output_dir={folder / 'functions-lora'}"]
    return train(load_config(folder / CONFIG, [*lora, *settings]))


def lay_out(folder: Path) -> None:
    """Copy the demo's config and rows into a folder; files that are there already stay as they are."""
    bundled = resources.files("hone") / "assets" / "demo"
    with disk_errors(folder, ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not (folder / name).exists():
                text = (bundled / name).read_text(encoding="utf-8")
                write_text_atomic(folder / name, text, ELSEWHERE)
