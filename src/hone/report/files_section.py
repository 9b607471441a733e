"""The files of a run, as links: everything on the page comes from them."""

from hone.report.blocks import Links, Section
from hone.report.folder import Folder

FILES = {
    "README.md": "the model card",
    "config.yaml": "the settings as they were given",
    "config.resolved.yaml": "every setting, with the paths of the machine it ran on",
    "eval/samples.jsonl": "what base and tuned wrote to held-out prompts, side by side",
    "eval/base.code.jsonl": "the programs of the base, each with its verdict",
    "eval/tuned.code.jsonl": "the programs of the tuned model, each with its verdict",
    "eval/base.json": "the base, measured",
    "eval/tuned.json": "the tuned model, measured",
    "eval/compare.json": "their paired difference",
    "eval/base.items.json": "the base, item by item",
    "eval/tuned.items.json": "the tuned model, item by item",
    "eval/contamination.json": "held-out items found in the training rows",
    "metrics.jsonl": "the curves: one line a log step",
    "train.log": "what was logged",
    "env.json": "machine, versions, fingerprints of the data",
}


def files(folder: Folder) -> Section | None:
    """Those that there are."""
    there = {name: what for name, what in FILES.items() if (folder.path / name).is_file()}
    return Section("Files of this run", [Links(there)]) if there else None
