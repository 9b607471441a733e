"""Classification: rows of a text and its class, a new head on a decoder or an encoder, accuracy and its relatives.

Class names are those of the training rows, sorted (by value where all are whole numbers). While rows are read a class
is numbered as it appears; the store remembers the names in that order, and the data set renumbers.

Measured are accuracy, balanced accuracy, precision, recall, F1 and confusion, each compared with a baseline. The
metrics are scikit-learn's. The interval of accuracy is Wilson's; those of balanced accuracy and macro F1 resample rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypedDict

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, recall_score
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.schema import Config
from hone.config.sections.eval import EvalSection
from hone.config.sections.method import MethodSection
from hone.data.batches import padded_texts
from hone.data.dataset import Dataset, Preview
from hone.data.encode import ROWS_PER_BATCH, Encoded
from hone.data.prepare import Examples, Prepared, Reading
from hone.data.records import Labelled
from hone.data.sources import Row, refuse_row
from hone.data.special_tokens import SpecialTokens, special_tokens
from hone.data.store import Split, Store
from hone.data.tokenizer import start_ids
from hone.data.truncate import limited
from hone.errors import HoneError, placed
from hone.inference.predict import class_log_probabilities, require_classifier
from hone.loss import Loss, classification_loss
from hone.metrics.continuations import decode, evenly_spaced
from hone.models.classifier_head import class_names
from hone.models.kinds import CLASSIFIER
from hone.results import ClassReport, ClassScores, Items, Kind, Level, Measurement, Sample, level_of
from hone.statistics.intervals import wilson_interval
from hone.statistics.paired import Metric, items_of, level
from hone.tasks.task import Task

ACCURACY = Kind(heading="accuracy", higher_is_better=True, top=1.0)
BALANCED_ACCURACY = Kind(heading="balanced accuracy", higher_is_better=True, top=1.0)
MACRO_F1 = Kind(heading="macro F1", higher_is_better=True, top=1.0)
LOSS = Kind(heading="loss", unit="nats/row", higher_is_better=False)
NAMED_CLASSES = 12  # in a message


# ---- rows to tokens --------------------------------------------------------------------------------------------------


def encode(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    """Tokenise labelled texts in the order given; the names of classes grow as they appear, unless they are fixed.

    Raises:
        HoneError: a label that is empty or, where names are fixed, unknown (and `on_bad_row` is "error").
    """
    names, on_bad_row, on_drop = reading.names, reading.data.on_bad_row, reading.on_drop
    numbers = {name: i for i, name in enumerate(names)}
    usable = _with_text(rows, on_drop)
    while batch := list(islice(usable, ROWS_PER_BATCH)):
        texts = [example.text for _, example in batch]
        for (row, example), ids in zip(batch, start_ids(reading.tokenizer, texts, special=False), strict=True):
            name = str(example.label)
            if not ids:  # characters that the tokenizer leaves out
                on_drop("empty text", row.where)
            elif not name.strip():
                refuse_row("the label is empty", row.where, on_bad_row, on_drop)
            elif name not in numbers and reading.names_are_fixed:
                known = ", ".join(f"'{n}'" for n in class_order(names)[:NAMED_CLASSES])
                reason = f"label '{name}' does not occur in the training rows (known: {known})"
                refuse_row(reason, row.where, on_bad_row, on_drop)
            else:
                if name not in numbers:
                    numbers[name] = len(names)
                    names.append(name)
                yield Encoded(np.array(ids, np.int64), np.ones(len(ids), bool), True, numbers[name])


def _with_text(rows: Examples, on_drop: Callable[[str, str], None]) -> Iterator[tuple[Row, Labelled]]:
    for row, example in rows:
        assert isinstance(example, Labelled), "only the form text+label was asked for"
        if example.text.strip():
            yield row, example
        else:
            on_drop("empty text", row.where)


def class_order(names: Iterable[str]) -> list[str]:
    """Names sorted; by value where all of them are whole numbers.

    >>> class_order(["10", "9", "2"]), class_order(["spam", "ham"])
    (['2', '9', '10'], ['ham', 'spam'])
    """
    found = list(names)
    try:
        return sorted(found, key=int)
    except ValueError:
        return sorted(found)


# ---- the data set ----------------------------------------------------------------------------------------------------


class LabelledItem(TypedDict):
    """input_ids (T,) int64, with special tokens; labels: the number of the class."""

    input_ids: np.ndarray
    labels: int


@dataclass(frozen=True, repr=False)
class LabelledDataset(Dataset):
    """A text between its special tokens, and its class. `sizes` are without special tokens.

    classes: (n,) int64, in the order of `names`. common: the most frequent training class.
    """

    classes: np.ndarray
    names: list[str]
    special: SpecialTokens
    common: int = 0

    def __getitem__(self, index: int) -> LabelledItem:
        start = int(self.starts[index])
        ids = self.split.tokens[start : start + int(self.sizes[index])].astype(np.int64)
        return {"input_ids": self.special.around(ids), "labels": int(self.classes[index])}

    @property
    def lengths(self) -> np.ndarray:
        sizes: np.ndarray = self.sizes + self.special.size
        return sizes

    def n_supervised(self) -> np.ndarray:
        """(n,) int64: one label for each row."""
        return np.ones(len(self), np.int64)

    @property
    def outputs(self) -> Sequence[str]:
        return self.names

    def counts(self) -> np.ndarray:
        """(classes,) int64: rows of each class."""
        return np.bincount(self.classes, minlength=len(self.names))

    def preview(self, index: int) -> Preview:
        item = self[index]
        name = self.names[item["labels"]]
        return Preview(item["input_ids"], np.zeros(len(item["input_ids"]), bool), f"label {name}")

    def described(self) -> str:
        """'classes: ham 12 (60.0 %), spam 8 (40.0 %)'."""
        counts = self.counts()
        shown = [f"{n} {c:,} ({c / max(1, len(self)):.1%})" for n, c in zip(self.names, counts)]
        more = f", … ({len(shown)} in all)" if len(shown) > NAMED_CLASSES else ""
        return f"classes: {', '.join(shown[:NAMED_CLASSES])}{more}"


def views(config: Config, store: Store, tokenizer: PreTrainedTokenizerBase) -> tuple[LabelledDataset, LabelledDataset]:
    """Training and validation rows, cut (or dropped) to `max_length` tokens with their special tokens."""
    data, special = config.data, special_tokens(tokenizer)
    with placed(config.where("max_length")):
        train, validation = (
            view(split, store.meta["label_names"], special, data.max_length, drop_long=data.on_long_row == "drop")
            for split in (store.train, store.val)
        )
    return train, validation


def view(
    split: Split, names_as_read: list[str], special: SpecialTokens, max_length: int, *, drop_long: bool
) -> LabelledDataset:
    """The rows of a split, cut (or dropped) so that text and special tokens together have at most `max_length` tokens.

    Raises:
        HoneError: the special tokens alone fill `max_length`.
    """
    room = max_length - special.size
    if room < 1:
        raise HoneError(f"max_length {max_length} leaves no space for a text", fix=f"set it above {special.size}")
    names = class_order(names_as_read)
    number = np.array([names.index(name) for name in names_as_read], np.int64)
    classes = np.zeros(0, np.int64) if split.labels is None else number[split.labels]
    keep, sizes, left_out = limited(np.diff(split.starts), room, "texts", drop=drop_long)
    documents = np.arange(split.n_documents)
    rows = LabelledDataset(split, split.starts[:-1], sizes, documents, classes, names, special, left_out=left_out)
    return rows.select(keep)


def settle(train: LabelledDataset, validation: LabelledDataset) -> LabelledDataset:
    """The validation rows, with the class that is the most frequent in training.

    Raises:
        HoneError: all training rows are of one class.
    """
    found = np.flatnonzero(train.counts())
    if len(found) < 2:
        raise HoneError(
            f"all training rows have the label '{train.names[found[0]]}': there is nothing to tell apart",
            fix="add rows of other classes, or look whether column_mapping: {label: …} names the right column",
        )
    return replace(validation, common=int(train.counts().argmax()))


# ---- batches and loss ------------------------------------------------------------------------------------------------


def collate(items: Sequence[LabelledItem], pad_token_id: int) -> dict[str, Tensor | int]:
    """Texts and their classes: input_ids, attention_mask (B, T); labels (B,)."""
    return {
        **padded_texts([item["input_ids"] for item in items], pad_token_id),
        "labels": torch.tensor([item["labels"] for item in items]),
        "num_tokens": sum(len(item["input_ids"]) for item in items),
    }


def loss_of(method: MethodSection, data: Prepared) -> Loss:
    """Cross-entropy over rows, with the weights of `class_weights`."""
    assert isinstance(data.train, LabelledDataset)
    weights = class_weights(data.train.counts()) if method.class_weights == "balanced" else None

    def loss(logits: Tensor, labels: Tensor, num_items: Any = None) -> Tensor:
        return classification_loss(logits, labels, num_items, weights)

    return loss


def class_weights(counts: np.ndarray) -> list[float]:
    """rows / (classes x rows of the class): every class weighs the same, and a row 1 on average.

    Classes without rows are not counted.

    >>> class_weights(np.array([3, 1, 0]))
    [0.6666666666666666, 2.0, 0.0]
    """
    n_classes = int(np.count_nonzero(counts))
    return [float(counts.sum() / (n_classes * n)) if n else 0.0 for n in counts]


# ---- measured --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """true, predicted: (n,) int64 class numbers. nll: (n,) float64, -log p of the true class, in nats."""

    true: np.ndarray
    predicted: np.ndarray
    nll: np.ndarray

    def metrics(self) -> dict[str, Metric]:
        """Those that are known row by row."""
        return {"accuracy": Metric(ACCURACY, self.true == self.predicted), "loss": Metric(LOSS, self.nll)}


def answers_of(model: PreTrainedModel, dataset: LabelledDataset, *, tokens_per_batch: int) -> Answers:
    """What the model answers to each row of `dataset`, in the dataset's numbering of classes.

    Raises:
        HoneError: it is not a classifier, or does not know one of the classes.
    """
    require_classifier(model)
    names = class_names(model)
    found = [dataset.names[i] for i in np.flatnonzero(dataset.counts())]
    if unknown := [name for name in found if name not in names]:
        raise HoneError(
            f"the model does not know the class '{unknown[0]}' (it knows {', '.join(names[:12])})",
            fix="measure it on rows of its own classes, or train it on these",
        )
    rows = [dataset[i]["input_ids"] for i in range(len(dataset))]
    logs = class_log_probabilities(model, rows, tokens_per_batch=tokens_per_batch)
    everything = [*dataset.names, *(name for name in names if name not in dataset.names)]
    of_model = np.array([everything.index(name) for name in names])  # the model's number -> ours
    of_dataset = {name: i for i, name in enumerate(names)}
    true = np.array([of_dataset[dataset.names[i]] for i in dataset.classes], np.int64)
    return Answers(dataset.classes.astype(np.int64), of_model[logs.argmax(-1)], -logs[np.arange(len(rows)), true])


def watch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, validation: LabelledDataset, settings: EvalSection
) -> dict[str, float]:
    """What evaluation during training reports."""
    got = answers_of(model, validation, tokens_per_batch=settings.eval_tokens_per_batch)
    return {
        "loss": float(got.nll.mean()),
        "accuracy": float((got.true == got.predicted).mean()),
        "macro_f1": float(f1_score(got.true, got.predicted, average="macro", zero_division=0)),
    }


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    validation: LabelledDataset,
    settings: EvalSection,
) -> tuple[Measurement, Items]:
    """The numbers with a few answers, and those of each row."""
    got = answers_of(model, validation, tokens_per_batch=settings.eval_tokens_per_batch)
    names = [*validation.names, *(n for n in class_names(model) if n not in validation.names)]
    samples = [
        Sample(
            item=i,
            prompt=decode(tokenizer, validation[i]["input_ids"]),
            reference=names[got.true[i]],
            text=names[got.predicted[i]],
        )
        for i in evenly_spaced(len(got.true), settings.sample_prompts)
    ]
    found = Measurement(
        task="classification",
        metrics=metrics(got, len(names), settings.confidence_level, settings.bootstrap_resamples),
        n_items=len(got.true),
        item="row",
        n_tokens=validation.n_tokens,
        confidence_level=settings.confidence_level,
        classes=class_report(got, names, validation.common),
        samples=samples,
    )
    return found, items_of("row", got.metrics())


def metrics(got: Answers, n_classes: int, confidence: float, resamples: int) -> dict[str, Level]:
    """Accuracy with Wilson's interval; balanced accuracy and macro F1, over resampled rows; the loss.

    Macro averages are over the classes that occur, as truth or as answer (scikit-learn's rule).
    """
    true, predicted, n = got.true, got.predicted, len(got.true)
    draws = _resampled(confusion_matrix(true, predicted, labels=range(n_classes)), resamples)
    recall = np.diagonal(draws, axis1=1, axis2=2) / np.maximum(draws.sum(2), 1)
    present, involved = draws.sum(2) > 0, (draws.sum(2) + draws.sum(1)) > 0
    f1 = 2 * np.diagonal(draws, axis1=1, axis2=2) / np.maximum(draws.sum(1) + draws.sum(2), 1)

    def over_draws(kind: Kind, value: float, drawn: np.ndarray) -> Level:
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]) if n > 1 else (None, None)
        return Level(kind=kind, value=value, low=low, high=high)

    each = recall_score(true, predicted, labels=np.unique(true), average=None, zero_division=0)
    return {
        "accuracy": level_of(ACCURACY, wilson_interval(int((true == predicted).sum()), n, confidence)),
        "balanced_accuracy": over_draws(
            BALANCED_ACCURACY, float(each.mean()), (recall * present).sum(1) / np.maximum(present.sum(1), 1)
        ),
        "macro_f1": over_draws(
            MACRO_F1,
            float(f1_score(true, predicted, average="macro", zero_division=0)),
            (f1 * involved).sum(1) / np.maximum(involved.sum(1), 1),
        ),
        "loss": level(got.metrics()["loss"], confidence=confidence, resamples=resamples),
    }


def class_report(got: Answers, names: list[str], common: int) -> ClassReport:
    """Precision, recall and F1 of each class and on average; a class that is never answered has precision 0.

    Args:
        common: the most frequent class of the training rows.
    """
    true, predicted = got.true, got.predicted
    each = precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=0)
    averages = {}
    for average in ("macro", "weighted"):
        mean = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        averages[average] = ClassScores(precision=mean[0], recall=mean[1], f1=mean[2], rows=len(true))
    return ClassReport(
        classes={
            name: ClassScores(precision=p, recall=r, f1=f, rows=n)
            for name, p, r, f, n in zip(names, *each, strict=True)
        },
        averages=averages,
        confusion=confusion_matrix(true, predicted, labels=range(len(names))).tolist(),
        majority_class=names[common],
        majority_accuracy=float((true == common).mean()),
    )


def _resampled(confusion: np.ndarray, resamples: int) -> np.ndarray:
    """Confusion matrices (resamples, classes, classes) of rows drawn with replacement: one multinomial draw each.

    A row counts only by its cell, so drawing rows and drawing cells by their shares are the same thing.
    """
    n = int(confusion.sum())
    draws = np.random.default_rng(0).multinomial(n, confusion.ravel() / n, size=resamples)
    return draws.reshape(resamples, *confusion.shape)


TASK = Task(
    name="classification",
    forms=("labelled",),
    encode=encode,
    views=views,
    settle=settle,
    model=CLASSIFIER,
    collate=collate,
    inputs=lambda model, batch: batch,
    loss=loss_of,
    watch=watch,
    measure=measure,
    answer=lambda validation, index, tokenizer: validation.names[validation.classes[index]],
    pipeline_tag="text-classification",
    try_it="hone predict {run} --text '…'",
)
