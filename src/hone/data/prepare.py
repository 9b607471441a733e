"""From the config's data keys to datasets, through the token store: read, recognise, encode, split, cut.

A second run with the same data, tokenizer and settings opens the store instead of tokenising again.

>>> prepared = prepare(config, task, tokenizer)                    # doctest: +SKIP
>>> len(prepared.train), prepared.store.meta["dropped"]            # doctest: +SKIP
"""

import functools
import gc
import hashlib
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from hone.cache import token_cache
from hone.config.schema import Config, Where
from hone.config.sections.data import DataSection
from hone.data import contamination
from hone.data.dataset import Dataset
from hone.data.encode import Encoded
from hone.data.inputs import Side, files_of, fingerprints, is_bin, is_tokens, row_notes, rows_of
from hone.data.places import places_of
from hone.data.records import REQUIRED, Example, Form, examples, recognise, refuse_unknown_names
from hone.data.shards import corpus_store
from hone.data.sources import Row, read_rows
from hone.data.split import Dropped, SplitRule, split_bin
from hone.data.store import FORMAT, Split, Store, empty_split, open_bin, open_store
from hone.data.store_writer import write_store
from hone.data.templates import resolve_template
from hone.data.tokenizer import tokenizer_fingerprint
from hone.data.truncate import TokenDataset
from hone.errors import HoneError, placed
from hone.files import disk_errors
from hone.progress import counted, stage
from hone.publish import META
from hone.results.contamination import Contamination
from hone.show import few_rows

log = logging.getLogger("hone")

Examples = Iterable[tuple[Row, Example]]


@dataclass(frozen=True)
class Reading:
    """What encoding one side's rows depends on; `names` of classes grow as they are consumed, unless they are fixed."""

    data: DataSection
    tokenizer: PreTrainedTokenizerBase
    template: str
    on_drop: Callable[[str, str], None]
    names: list[str]
    names_are_fixed: bool


class TaskData(Protocol):
    """A task (`hone.tasks.task.Task`) as far as preparing its data goes."""

    @property
    def name(self) -> str: ...
    @property
    def forms(self) -> tuple[Form, ...]: ...
    @property
    def token_rows(self) -> bool: ...
    @property
    def encode(self) -> Callable[[Examples, Reading], Iterator[Encoded]]: ...
    @property
    def views(self) -> Callable[[Config, Store, PreTrainedTokenizerBase], tuple[Any, Any]]: ...
    @property
    def settle(self) -> Callable[[Any, Any], Any]: ...


@dataclass(frozen=True, repr=False)
class Prepared:
    """Data ready to train on.

    train: examples as they are trained. validation: the held-out documents as they are measured (all of a text's
    tokens, also beyond max_length, in consecutive pieces). template: the one that was used, never "auto".
    contamination: validation items that occur in the training rows, None if it was not looked for.
    """

    store: Store
    train: Dataset
    validation: Dataset
    template: str
    cached: bool
    seconds: float
    contamination: Contamination | None = None

    def __repr__(self) -> str:
        """How much there is, and where it is kept."""
        sides = f"train={self.train!r}, validation={self.validation!r}"
        return f"Prepared({sides}, template={self.template!r}, store={str(self.store.folder or 'token files')!r})"


def prepare(config: Config, task: TaskData, tokenizer: PreTrainedTokenizerBase) -> Prepared:
    """Prepare the training and validation data a config names.

    Raises:
        HoneError: missing, empty or malformed data, nothing left to train on, or nowhere to write the store.
    """
    began = time.perf_counter()
    data, where = config.data, config.where
    paths = files_of(data, "train")
    made = _from_bin if is_bin(paths) else _from_corpus if is_tokens(paths) else _from_rows
    store, cached = made(data, task, tokenizer, where)
    train, validation = task.views(config, store, tokenizer)
    train, validation = train.head(data.max_train_samples), validation.head(data.max_eval_samples)
    found = None
    if data.overlap != "off" and len(train) and len(validation):
        stage("looking for validation items in the training rows")
        found = contamination.contamination_of(
            store,
            train,
            validation,
            tokenizer,
            cache=token_cache(data.token_cache_dir),
            places=functools.partial(places, data, task),
            however_long=data.overlap == "drop",
        )
        train = contamination.without_contaminated_rows(train, found) if data.overlap == "drop" else train
        if not len(train):
            raise HoneError(
                "every training row holds a validation item",
                where=where("overlap"),
                fix="give other validation rows, or set overlap: flag",
            )
    refuse_empty(data, store, train, validation, where)
    with placed(where("train_file") or where("dataset_name")):
        validation = task.settle(train, validation)
    return Prepared(store, train, validation, store.meta["template"], cached, time.perf_counter() - began, found)


def refuse_empty(data: DataSection, store: Store, train: Dataset, validation: Dataset, where: Where) -> None:
    """Raise a HoneError, with all reasons, if one side that was asked for has no example."""
    if not len(train):
        raise HoneError(
            f"no example is left to train on with max_length {data.max_length}: {_listed(train.left_out)}",
            where=where("max_length"),
            fix="every text is shorter than one window: lower max_length, or set batching: flat"
            if data.batching == "windows"
            else "raise max_length: a row needs room for its prompt and some of its answer",
        )
    if not len(validation) and (data.validation_file or data.dataset_validation_split):
        dropped = {f"× {entry['reason']}": entry["count"] for entry in store.meta["dropped"]}
        raise HoneError(
            f"no validation row is left to measure: {_listed({**dropped, **validation.left_out})}",
            where=where("validation_file") or where("dataset_validation_split"),
            fix="look at its rows, or remove the key: then part of the training rows is held out",
        )


def _listed(left_out: dict[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the data is empty"


def _from_rows(
    data: DataSection, task: TaskData, tokenizer: PreTrainedTokenizerBase, where: Where
) -> tuple[Store, bool]:
    """The token store of the rows, and whether it was there already."""
    folder, sources, settings = store_place(data, task, tokenizer)
    if (folder / META).is_file():
        try:
            return open_store(folder), True
        except HoneError as error:
            log.warning("%s: %s: it is written again", folder, error.what)

    dropped = Dropped()
    names: list[str] = []  # of classes: filled while the rows are consumed, as the counts of `dropped` are
    form, template, rows = _encoded(data, task, "train", tokenizer, dropped, names, where)
    validation = None
    if data.validation_file or data.dataset_validation_split:
        _, other, validation = _encoded(data, task, "validation", tokenizer, dropped, names, where)
        if other != template:
            raise HoneError(
                f"validation rows are formatted by the template '{other}', training rows by '{template}'",
                where=where("validation_file") or where("dataset_validation_split"),
                fix="give both in the same form, or set template",
            )
    meta = {"form": form, "template": template, "sources": sources, "settings": settings, "label_names": names}
    meta |= {"notes": dropped.notes}
    rule = SplitRule(data.validation_split_percentage, data.split_seed, data.deduplicate, task.token_rows)
    with _rare_collections():
        store = write_store(folder, rows, validation, rule, vocab_size=len(tokenizer), dropped=dropped, meta=meta)
    return store, False


def store_place(
    data: DataSection, task: TaskData, tokenizer: PreTrainedTokenizerBase
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder of the token store of this data, whether it is there or not; what the data is; and the settings."""
    sources = fingerprints(data)
    settings: dict[str, Any] = {
        "task": task.name,
        "column_mapping": data.column_mapping,
        "template": data.template,
        "completion_only_loss": data.completion_only_loss,
        "append_eos": data.append_eos,
        "on_bad_row": data.on_bad_row,
        "deduplicate": data.deduplicate,
        "validation_split_percentage": data.validation_split_percentage,
        "split_seed": data.split_seed,
    }
    identity = {"format": FORMAT, "sources": sources, "tokenizer": tokenizer_fingerprint(tokenizer), **settings}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    return token_cache(data.token_cache_dir) / key, sources, settings


def is_prepared(data: DataSection, task: TaskData, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether `prepare` would find the tokens on the disk, and need not tokenise."""
    return is_tokens(files_of(data, "train")) or (store_place(data, task, tokenizer)[0] / META).is_file()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage cycles every 100,000 objects only: rows make none, and looking costs a sixth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000 if before[0] else 0, *before[1:])  # 0: somebody turned it off
    try:
        yield
    finally:
        gc.set_threshold(*before)


def examples_of(
    data: DataSection,
    task: TaskData,
    side: Side,
    tokenizer: PreTrainedTokenizerBase,
    dropped: Dropped,
    where: Where,
) -> tuple[str, str, Iterator[tuple[Row, Example]]]:
    """The form of one side's rows, the template they resolve to, and the examples (read as they are consumed)."""
    with placed(where("column_mapping")):
        refuse_unknown_names(data.column_mapping)
    found = examples(
        rows_of(data, side, dropped.add),
        column_mapping=data.column_mapping,
        on_bad_row=data.on_bad_row,
        on_skip=dropped.add,
        forms=task.forms,
    )
    first = next(found, None)
    if first is None:
        raise HoneError(f"no {side} rows", where=where(f"{side}_file"), fix=dropped.summary())
    form, mapping = recognise(first[0].columns, data.column_mapping, task.forms)
    template = "plain"
    if task.token_rows or data.template != "auto":
        with placed(where("template")):
            template = resolve_template(data.template, form, bool(getattr(tokenizer, "chat_template", None)))
    for note in row_notes(data, *first, form, mapping, plain=task.token_rows and template == "plain"):
        dropped.note(note)
    return form, template, itertools.chain([first], found)


def _encoded(
    data: DataSection,
    task: TaskData,
    side: Side,
    tokenizer: "PreTrainedTokenizerBase",
    dropped: Dropped,
    names: list[str],
    where: Where,
) -> tuple[str, str, Iterator[Encoded]]:
    """As `examples_of`, encoded."""
    form, template, found = examples_of(data, task, side, tokenizer, dropped, where)
    reading = Reading(data, tokenizer, template, dropped.add, names, names_are_fixed=side == "validation")
    what = "reading and tokenising rows" if side == "train" else "reading and tokenising validation rows"
    return form, template, task.encode(counted(found, what), reading)


def places(data: DataSection, task: TaskData, side: Side, texts: Sequence[str]) -> list[str | None]:
    """File and line of the rows that texts of one side were formatted from; not looked for on the hub."""
    paths = files_of(data, side) or files_of(data, "train")
    if data.dataset_name or is_tokens(paths):
        return [None] * len(texts)
    rows = read_rows(paths, on_bad_row="skip", on_skip=_ignore)
    found = examples(rows, column_mapping=data.column_mapping, on_bad_row="skip", on_skip=_ignore, forms=task.forms)
    return places_of(texts, found)


def _ignore(reason: str, where: str) -> None:
    """It was said when the rows were read first."""


def _from_corpus(
    data: DataSection, task: TaskData, tokenizer: PreTrainedTokenizerBase, where: Where
) -> tuple[Store, bool]:
    """A sealed corpus, used where it lies."""
    _refuse_tokens(task, "a corpus has", where)
    with placed(where("train_file")):
        return corpus_store(files_of(data, "train"), files_of(data, "validation"), tokenizer), True


def _refuse_tokens(task: TaskData, what: str, where: Where) -> None:
    """Raise a HoneError for a task that needs more than text."""
    if not task.token_rows:
        raise HoneError(
            f"{what} no rows for task: {task.name}",
            where=where("train_file"),
            fix=f"name rows of {' or '.join('+'.join(REQUIRED[form]) for form in task.forms)}, e.g. a .jsonl file",
        )


def _from_bin(
    data: DataSection, task: TaskData, tokenizer: PreTrainedTokenizerBase, where: Where
) -> tuple[Store, bool]:
    """Token files of another tool, used where they lie."""
    _refuse_tokens(task, "token files (.bin) have", where)
    train_paths, val_paths = files_of(data, "train"), files_of(data, "validation")
    if len(train_paths) != 1 or len(val_paths) > 1 or not is_bin(val_paths or train_paths):
        raise HoneError(
            "token files (.bin) cannot be mixed with other files or with each other",
            where=where("train_file"),
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
        "sources": fingerprints(data),
        "dropped": [],
        "splits": {
            name: {"documents": s.n_documents, "tokens": int(s.starts[-1] - s.starts[0])}
            for name, s in (("train", train), ("val", val))
        },
    }
    return Store(None, train, val, meta), False


def describe(data: Prepared, batching: str) -> list[str]:
    """What was read, kept and dropped, a line each."""
    layout = f", template {data.template}, batches {batching}" if isinstance(data.train, TokenDataset) else ""
    how = "from the token cache" if data.cached else f"tokenised in {data.seconds:.1f} s"
    train = data.train
    lines = [
        f"data: {len(train):,} training examples, {train.n_tokens:,} tokens, {train.described()}{layout} ({how})",
        f"data: {len(data.validation):,} validation examples from {data.store.val.n_documents:,} documents, "
        f"{data.validation.n_tokens:,} tokens",
    ]
    lines += [f"data: {note}" for note in data.store.meta.get("notes", [])]
    for entry in data.store.meta["dropped"]:
        places = f": {', '.join(entry['first'])}" + (", …" if entry["count"] > len(entry["first"]) else "")
        lines.append(f"data: dropped {entry['count']:,} × {entry['reason']}" + (places if entry["first"] else ""))
    lines += [f"data: {count:,} {reason}" for reason, count in train.left_out.items()]
    if data.contamination is not None:
        told = contamination.describe(data.contamination, contamination.DROPPED in train.left_out)
        lines += [f"data: {line}" for line in told]
    few = few_rows(len(train))
    return [*lines, f"data: {few}"] if few else lines


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
