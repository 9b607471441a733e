"""The end of it: shards and manifest in a folder of their own, which gets its name when all of it is on the disk."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from pathlib import Path

from hone.corpus.load import Loaded
from hone.corpus.schema import DECIDING, CorpusConfig
from hone.corpus.stages import Stage
from hone.corpus.work import Plan, Work, merged
from hone.data.shards import CORPUS_CONFIG, corpus_problems, is_corpus, read_manifest
from hone.data.store_writer import token_dtype
from hone.errors import HoneError
from hone.files import disk_errors, fsync_path, write_text_atomic
from hone.manifest import MANIFEST, describe_files
from hone.publish import begin, discard
from hone.results import write
from hone.results.corpus import CorpusManifest, FileSize, Shard

SETTING = "output_dir=…"
PACKAGES = ("hone-lm", "datatrove", "numpy", "pyarrow", "tokenizers", "transformers")


def settings_sha256(settings: CorpusConfig) -> str:
    """A hash of the settings that decide the content; where the files lie is none of them."""
    values = {name: getattr(settings, name).model_dump(mode="json") for name in DECIDING}
    values["read"]["files"], values["contamination"]["evaluation_files"] = None, None
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def corpus_key(plan: Plan) -> str:
    """A hash of the settings, and of the inputs' names and sizes: known before anything is read."""
    inputs: dict[str, int] = {}
    for part in plan.parts:
        inputs[part.name] = inputs.get(part.name, 0) + part.n_bytes
    text = json.dumps([settings_sha256(plan.settings), sorted(inputs.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def sealed_already(output: Path, key: str) -> CorpusManifest | None:
    """The corpus that is there, if it is this one.

    Raises:
        HoneError: something else is there, or the corpus is damaged.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    fix = "choose another output_dir, or remove what is there"
    if not is_corpus(output):
        raise HoneError("exists already, and is not a corpus", where=str(output), fix=fix)
    manifest = read_manifest(output)
    if manifest.key != key:
        raise HoneError("a corpus of other settings or other inputs is there", where=str(output), fix=fix)
    if found := corpus_problems(output, whole=False):
        fix = "delete the folder, and run again: `hone corpus run CONFIG`"
        raise HoneError(f"the corpus is damaged: {found[0]}", where=str(output), fix=fix)
    return manifest


def seal(work: Work, stages: list[Stage], loaded: Loaded, output: Path) -> CorpusManifest:
    """Give the shards their place, with a manifest of everything.

    Raises:
        HoneError: no document is left, or the disk is full.
    """
    n_tasks = {stage.name: stage.n_tasks for stage in stages}
    shards = sorted((s for done in work.all_done("shards", n_tasks["shards"]) for s in done.shards), key=_order)
    dropped = merged(work, [("documents", n_tasks["documents"]), ("tokens", n_tasks["tokens"])])
    if not any(shard.split == "train" for shard in shards):
        reasons = "; ".join(f"{one.count:,} × {one.reason}" for one in dropped) or "nothing was read"
        raise HoneError(f"no document is left to train on: {reasons}", where=str(output), fix="look at the thresholds")
    with disk_errors(output, SETTING):
        if output.is_dir():
            output.rmdir()  # an empty one: a folder that is not stays, and is named
        aside = begin(output)
        try:
            for rank in range(n_tasks["shards"]):
                for path in sorted(work.result("shards", rank).iterdir()):
                    if path.name.startswith(("train-", "val-")):
                        _place(path, aside.path / path.name)
            write_text_atomic(aside.path / CORPUS_CONFIG, loaded.text, SETTING)
            manifest = _manifest(work, n_tasks, shards, aside.path).model_copy(update={"dropped": dropped})
            write(aside.path / MANIFEST, manifest)
            fsync_path(aside.path)
            aside.path.rename(output)
            fsync_path(output.parent)
        finally:
            discard(aside)
    return manifest


def _order(shard: Shard) -> tuple[bool, str]:
    return shard.split == "val", shard.name


def _place(source: Path, target: Path) -> None:
    """The file under another name too; on another file system, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        fsync_path(target)


def _manifest(work: Work, n_tasks: dict[str, int], shards: list[Shard], folder: Path) -> CorpusManifest:
    tokenizer = work.plan.tokenizer
    documents = work.all_done("documents", n_tasks["documents"])
    masked: dict[str, int] = {}
    for done in documents:
        for kind, n in done.masked.items():
            masked[kind] = masked.get(kind, 0) + n
    return CorpusManifest(
        key=corpus_key(work.plan),
        settings_sha256=settings_sha256(work.settings),
        tokenizer=tokenizer,
        dtype="uint16" if token_dtype(tokenizer.n_entries).itemsize == 2 else "uint32",
        n_read=sum(done.n_read for done in documents),
        n_text_bytes=sum(done.n_bytes for done in work.all_done("tokens", n_tasks["tokens"])),
        shards=shards,
        dropped=[],
        n_masked=dict(sorted(masked.items())),
        inputs=[one for done in documents for one in done.inputs],
        versions={package: importlib.metadata.version(package) for package in PACKAGES},
        files={name: FileSize(**about) for name, about in describe_files(folder).items()},
    )
