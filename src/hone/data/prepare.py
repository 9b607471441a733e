"""From the config's data keys to datasets, through the token store: read, recognise, encode, split, cut.

A second run with the same data, tokenizer and settings opens the store instead of tokenising again.

>>> prepared = prepare(config, tokenizer)                          # doctest: +SKIP
>>> len(prepared.train), prepared.store.meta["dropped"]            # doctest: +SKIP
"""

import gc
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.cache import token_cache
from hone.config.fields import as_paths
from hone.config.schema import Config
from hone.data.contamination import describe_overlap, overlap_of, without_overlap
from hone.data.encode import Encoded
from hone.data.labels import LabelledDataset
from hone.data.records import detect_form, examples
from hone.data.seq2seq import PairDataset
from hone.data.sources import Row, expand, read_hub_rows, read_rows
from hone.data.store import (
    FORMAT,
    Dropped,
    Split,
    SplitRule,
    Store,
    empty_split,
    open_bin,
    open_store,
    split_bin,
    write_store,
)
from hone.data.tasks import TASK_DATA, Reading, refuse_one_class
from hone.data.templates import resolve_template
from hone.data.truncate import TokenDataset
from hone.errors import HoneError, placed
from hone.files import disk_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Dataset = TokenDataset | LabelledDataset | PairDataset


@dataclass(frozen=True)
class Prepared:
    """Data ready to train on.

    train: examples as they are trained. validation: the held-out documents as they are measured (all of a text's
    tokens, also beyond max_length, in consecutive pieces). template: the one that was used, never "auto". overlap:
    what eval/overlap.json says of the two (`contamination.py`), None if it was not looked for.
    """

    store: Store
    train: Any  # Dataset: the task says which
    validation: Any
    template: str
    cached: bool
    seconds: float
    overlap: dict[str, Any] | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in their order; empty where rows have none."""
        return list(getattr(self.train, "names", ()))


def prepare(config: Config, tokenizer: "PreTrainedTokenizerBase") -> Prepared:
    """Prepare the training and validation data a config names.

    Raises:
        HoneError: missing, empty or malformed data, nothing left to train on, or nowhere to write the store.
    """
    began = time.perf_counter()
    data = config.data
    store, cached = _from_bin(config, tokenizer) if _is_bin(data.train_file) else _from_rows(config, tokenizer)
    train, validation = TASK_DATA[config.method.task].views(config, store, tokenizer)
    train, validation = train.head(data.max_train_samples), validation.head(data.max_eval_samples)
    overlap = None
    if data.overlap != "off" and len(train) and len(validation):
        overlap = overlap_of(
            store,
            train,
            validation,
            tokenizer,
            cache=token_cache(data.token_cache_dir),
            however_long=data.overlap == "drop",
        )
        train = without_overlap(train, overlap) if data.overlap == "drop" else train
        if not len(train):
            raise HoneError(
                "every training row overlaps with a validation item",
                where=config.where("overlap"),
                fix="give other validation rows, or set overlap: flag",
            )
    if not len(train):
        raise HoneError(
            f"no example is left to train on with max_length {data.max_length}: {_reasons(train.left_out)}",
            where=config.where("max_length"),
            fix="every text is shorter than one window: lower max_length, or set batching: flat"
            if data.batching == "windows"
            else "raise max_length: a row needs room for its prompt and some of its answer",
        )
    if isinstance(train, LabelledDataset):
        with placed(config.where("train_file") or config.where("dataset_name")):
            refuse_one_class(train)
        validation = validation.with_common(int(train.counts().argmax()))
    if not len(validation) and (data.validation_file or data.dataset_validation_split):
        raise HoneError(
            f"no validation row is left to measure: {_reasons({**_dropped(store), **validation.left_out})}",
            where=config.where("validation_file") or config.where("dataset_validation_split"),
            fix="look at its rows, or remove the key: then part of the training rows is held out",
        )
    return Prepared(store, train, validation, store.meta["template"], cached, time.perf_counter() - began, overlap)


def _reasons(left_out: dict[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the data is empty"


def _dropped(store: Store) -> dict[str, int]:
    return {f"× {entry['reason']}": entry["count"] for entry in store.meta["dropped"]}


def _is_bin(files: Any) -> bool:
    return any(str(path).endswith(".bin") for path in as_paths(files))


def _from_rows(config: Config, tokenizer: "PreTrainedTokenizerBase") -> tuple[Store, bool]:
    data, task = config.data, config.method.task
    folder, sources, settings = store_place(config, tokenizer)
    if (folder / "meta.json").is_file():
        return open_store(folder), True

    dropped = Dropped()
    names: list[str] = []  # of classes: filled while the rows are consumed, as the counts of `dropped` are
    form, template, rows = _encoded(config, "train", tokenizer, dropped, names)
    validation = None
    if data.validation_file or data.dataset_validation_split:
        _, other, validation = _encoded(config, "validation", tokenizer, dropped, names)
        if other != template:
            raise HoneError(
                f"validation rows are spelled by the template '{other}', training rows by '{template}'",
                where=config.where("validation_file") or config.where("dataset_validation_split"),
                fix="give both in the same form, or set template",
            )
    with _rare_collections():
        store = write_store(
            folder,
            rows,
            validation,
            SplitRule(data.validation_split_percentage, data.split_seed, data.deduplicate, task == "causal"),
            vocab_size=len(tokenizer),
            dropped=dropped,
            meta={"form": form, "template": template, "sources": sources, "settings": settings}
            | ({"label_names": names} if task == "classification" else {}),
        )
    return store, False


def store_place(config: Config, tokenizer: "PreTrainedTokenizerBase") -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder of the token store of this data, whether it is there or not; what the data is; and the settings."""
    data, task = config.data, config.method.task
    sources = _fingerprints(config)
    settings: dict[str, Any] = {
        "column_mapping": data.column_mapping,
        "template": data.template,
        "completion_only_loss": data.completion_only_loss,
        "append_eos": data.append_eos,
        "on_bad_row": data.on_bad_row,
        "deduplicate": data.deduplicate,
        "validation_split_percentage": data.validation_split_percentage,
        "split_seed": data.split_seed,
    }
    if task != "causal":
        settings["task"] = task
    identity = {"format": FORMAT, "sources": sources, "tokenizer": tokenizer_fingerprint(tokenizer), **settings}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    return token_cache(data.token_cache_dir) / key, sources, settings


def is_prepared(config: Config, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether `prepare` would find the tokens on the disk, and need not tokenise."""
    return _is_bin(config.data.train_file) or (store_place(config, tokenizer)[0] / "meta.json").is_file()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage cycles every 100,000 objects only: rows make none, and looking costs a sixth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000 if before[0] else 0, *before[1:])  # 0: somebody turned it off
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _encoded(
    config: Config, side: str, tokenizer: "PreTrainedTokenizerBase", dropped: Dropped, names: list[str]
) -> tuple[str, str, Iterator[Encoded]]:
    """The form of one side's rows, the template they resolve to, and the encoded rows (read as they are consumed)."""
    data, task = config.data, TASK_DATA[config.method.task]
    found = examples(
        _rows(config, side, dropped),
        column_mapping=data.column_mapping,
        on_bad_row=data.on_bad_row,
        on_skip=dropped.add,
        forms=task.forms,
    )
    first = next(found, None)
    if first is None:
        raise HoneError(f"no {side} rows", where=config.where(f"{side}_file"), fix=dropped.summary())
    form = detect_form(first[0].columns, data.column_mapping, task.forms)
    template = "plain"
    if config.method.task == "causal" or data.template != "auto":
        with placed(config.where("template")):
            template = resolve_template(data.template, form, bool(getattr(tokenizer, "chat_template", None)))
    reading = Reading(data, tokenizer, template, dropped.add, names, names_are_fixed=side == "validation")
    return form, template, task.encode(itertools.chain([first], found), reading)


def _rows(config: Config, side: str, dropped: Dropped) -> Iterator[Row]:
    data = config.data
    if data.dataset_name:
        split = data.dataset_train_split if side == "train" else data.dataset_validation_split
        return read_hub_rows(data.dataset_name, data.dataset_config_name, str(split))
    paths = as_paths(data.train_file if side == "train" else data.validation_file)
    return read_rows(paths, on_bad_row=data.on_bad_row, on_skip=dropped.add)


def _fingerprints(config: Config) -> dict[str, Any]:
    """What the data is, by content: SHA-256 of every file, or the hub data set's name and commit."""
    data = config.data
    if data.dataset_name:
        return {
            "dataset": data.dataset_name,
            "config": data.dataset_config_name,
            "splits": [data.dataset_train_split, data.dataset_validation_split],
            "commit": _hub_commit(data.dataset_name),
        }
    return {
        side: [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in (paths if _is_bin(paths) else expand(paths))
        ]
        for side, paths in (("train", as_paths(data.train_file)), ("validation", as_paths(data.validation_file)))
        if paths
    }


def _hub_commit(name: str) -> str | None:
    """The data set's current commit; None when it is a local folder or the hub does not answer."""
    if Path(name).is_dir():
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name, timeout=10).sha
    except Exception:  # offline or unknown: reading the rows will say which, in full
        return None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A hash of what the tokenizer does: its rules, special tokens and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = [rules, str(sorted(tokenizer.special_tokens_map.items(), key=str)), str(tokenizer.chat_template)]
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()


def _from_bin(config: Config, tokenizer: "PreTrainedTokenizerBase") -> tuple[Store, bool]:
    """Token files of another tool, used where they lie."""
    data = config.data
    if config.method.task != "causal":
        raise HoneError(
            f"token files (.bin) have no rows for task: {config.method.task}",
            where=config.where("train_file"),
            fix="name rows of text+label or source+target, e.g. a .jsonl file",
        )
    train_paths, val_paths = as_paths(data.train_file), as_paths(data.validation_file)
    if len(train_paths) != 1 or len(val_paths) > 1 or not _is_bin(data.validation_file or train_paths):
        raise HoneError(
            "token files (.bin) cannot be mixed with other files or with each other",
            where=config.where("train_file"),
            fix="give one .bin as train_file and, if you have it, one .bin as validation_file",
        )
    train = open_bin(train_paths[0], data.bin_dtype, tokenizer.eos_token_id)
    val: Split = empty_split()
    if val_paths:
        val = open_bin(val_paths[0], data.bin_dtype, tokenizer.eos_token_id)
    else:
        train, val = split_bin(train, SplitRule(data.validation_split_percentage, data.split_seed, data.deduplicate))
    meta = {
        "form": "text",
        "template": "plain",
        "dtype": data.bin_dtype,
        "sources": _fingerprints(config),
        "dropped": [],
        "splits": {
            name: {"documents": s.n_documents, "tokens": int(s.starts[-1] - s.starts[0])}
            for name, s in (("train", train), ("val", val))
        },
    }
    return Store(None, train, val, meta), False


def describe(data: Prepared, batching: str) -> list[str]:
    """What was read, kept and dropped, a line each."""
    told = f"({int(data.train.n_supervised().sum()):,} supervised), template {data.template}, batches {batching}"
    if not isinstance(data.train, TokenDataset):
        told = f"and {data.train.described()}"
    lines = [
        f"data: {len(data.train):,} training examples, {data.train.n_tokens:,} tokens {told}"
        + (" (from the token cache)" if data.cached else f" (tokenised in {data.seconds:.1f} s)"),
        f"data: {len(data.validation):,} validation examples from {data.store.val.n_documents:,} documents, "
        f"{data.validation.n_tokens:,} tokens",
    ]
    for entry in data.store.meta["dropped"]:
        places = f": {', '.join(entry['first'])}" + (", …" if entry["count"] > len(entry["first"]) else "")
        lines.append(f"data: dropped {entry['count']:,} × {entry['reason']}" + (places if entry["first"] else ""))
    lines += [f"data: {count:,} {reason}" for reason, count in data.train.left_out.items()]
    lines += [f"data: {describe_overlap(data.overlap)}"] if data.overlap is not None else []
    return lines


def copy_bins(store: Store, folder: Path) -> None:
    """train.bin, val.bin and meta.json of a store, for tools that read nanoGPT's token files."""
    if store.folder is None:
        raise HoneError("the data are token files already", fix="copy them")
    with disk_errors(folder, "--save-bin …"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train.bin", "val.bin", "meta.json"):
            temporary = folder / f".{name}.tmp-{os.getpid()}"
            shutil.copyfile(store.folder / name, temporary)
            temporary.replace(folder / name)


def check_files(config: Config) -> None:
    """Refuse missing, empty or unreadable data files without reading their rows."""
    data = config.data
    for path in [*as_paths(data.train_file), *as_paths(data.validation_file)]:
        if path.suffix == ".bin":
            open_bin(path, data.bin_dtype, None)
        else:
            expand([path])
