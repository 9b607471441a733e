"""What an export is compared on: held-out items of the run, or, where their rows are not at hand, texts of our own.

>>> items, what = comparison_items("runs/my", tokenizer, 512, 16_384)      # doctest: +SKIP
>>> len(items), what
(64, 'held-out items')
"""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from hone.config.load import load_config
from hone.convert.gguf_check import Item
from hone.data.prepare import prepare
from hone.data.tokenizer import start_ids
from hone.errors import HoneError
from hone.runs import RESOLVED
from hone.tasks import chosen

MOST_ITEMS = 64
LONGEST = 512  # tokens of an item
TEXTS = (
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "### Instruction:\nWrite a function double(x) that returns twice x.\n\n### Response:\ndef double(x):\n"
    "    return 2 * x\n",
    "The quick brown fox jumps over the lazy dog. It was the best of times, it was the worst of times, it was the age "
    "of wisdom, it was the age of foolishness.",
    "import json\n\nclass Store:\n    '''Keeps values by key.'''\n\n    def __init__(self, path):\n"
    "        self.path = path\n        self.values = {}\n\n    def save(self):\n"
    "        with open(self.path, 'w') as file:\n            json.dump(self.values, file)\n",
    "| name | value |\n| --- | --- |\n| one | 1.5 |\n| two | 2,000 |\n\n- a list\n- of things\n",
    "Überall gibt es naïve Fragen: 你好，世界！ Привет, мир. 🙂 x² + y² = z²",
)


def comparison_items(
    source: str, tokenizer: PreTrainedTokenizerBase, window: int, most_tokens: int
) -> tuple[list[Item], str]:
    """Items of at most the window's length, at most `most_tokens` in all; and what they are, in words."""
    found = _held_out(Path(source), tokenizer)
    what = "held-out items"
    if not found:
        found = [Item(ids, [True] * len(ids)) for ids in start_ids(tokenizer, list(TEXTS), special=False)]
        what = "texts of hone's (the run's held-out rows are not at hand)"
    longest, kept, total = min(window, LONGEST), list[Item](), 0
    for item in found:
        if kept and total + min(len(item.ids), longest) > most_tokens:
            break
        kept.append(Item(item.ids[:longest], item.counted[:longest]))
        total += len(kept[-1].ids)
    return kept, what


def _held_out(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[Item]:
    """The first of the run's held-out items that lie evenly over all; none where its rows are not there any more."""
    path = next((place / RESOLVED for place in (folder, folder.parent) if (place / RESOLVED).is_file()), None)
    if path is None:
        return []
    try:
        config, task = chosen(load_config(path), None)
        validation = prepare(config, task, tokenizer).validation
    except HoneError:
        return []
    picked = np.unique(np.linspace(0, len(validation) - 1, min(MOST_ITEMS, len(validation))).astype(int))
    items = []
    for i in picked if len(validation) else ():
        example = validation[int(i)]
        ids, labels = np.asarray(example["input_ids"]), np.asarray(example["labels"])
        if len(ids) > 1:
            items.append(Item(ids.tolist(), (labels != -100).tolist()))
    return items
