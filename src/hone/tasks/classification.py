"""A classifier on held-out rows: accuracy, balanced accuracy, precision, recall, F1, confusion, each beside a baseline.

The metrics are scikit-learn's. The interval of accuracy is Wilson's; those of balanced accuracy and macro F1 resample
rows. Base and tuned are compared in `statistics.paired`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.batches import labelled
from hone.data.labels import LabelledDataset
from hone.data.prepare import Prepared
from hone.errors import HoneError
from hone.inference.predict import class_log_probabilities, require_classifier
from hone.loss import classification_loss
from hone.metrics.continuations import decode, evenly_spaced
from hone.models.classifier_head import class_names
from hone.statistics.intervals import Interval, ratio_interval, wilson_interval
from hone.tasks.task import Loss, Task

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answers:
    """true, predicted: (n,) int64 class numbers. nll: (n,) float64, -log p of the true class, in nats."""

    true: np.ndarray
    predicted: np.ndarray
    nll: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "row", **{name: values.tolist() for name, values in vars(self).items()}}

    @classmethod
    def of_dict(cls, items: dict[str, Any]) -> "Answers":
        return cls(np.array(items["true"]), np.array(items["predicted"]), np.array(items["nll"]))


def answers_of(model: "PreTrainedModel", dataset: LabelledDataset, config: Config) -> Answers:
    """What the model answers to each row of `dataset`, in the dataset's numbering of classes.

    Raises:
        HoneError: it is no classifier, or does not know one of the classes.
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
    logs = class_log_probabilities(model, rows, tokens_per_batch=config.eval.eval_tokens_per_batch)
    everything = [*dataset.names, *(name for name in names if name not in dataset.names)]
    of_model = np.array([everything.index(name) for name in names])  # the model's number -> ours
    of_dataset = {name: i for i, name in enumerate(names)}
    true = np.array([of_dataset[dataset.names[i]] for i in dataset.classes], np.int64)
    return Answers(dataset.classes.astype(np.int64), of_model[logs.argmax(-1)], -logs[np.arange(len(rows)), true])


def watch(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", validation: LabelledDataset, config: Config
) -> dict[str, float]:
    """What evaluation during training reports."""
    from sklearn.metrics import f1_score

    got = answers_of(model, validation, config)
    return {
        "loss": float(got.nll.mean()),
        "accuracy": float((got.true == got.predicted).mean()),
        "macro_f1": float(f1_score(got.true, got.predicted, average="macro", zero_division=0)),
    }


def measure(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    validation: LabelledDataset,
    config: Config,
    name: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of eval/<name>.json, and of each row."""
    got, settings = answers_of(model, validation, config), config.eval
    names = [*validation.names, *(n for n in class_names(model) if n not in validation.names)]
    result = metrics(got, names, settings.confidence_level, settings.bootstrap_resamples)
    result["majority_class"] = names[validation.common]
    result["majority_accuracy"] = float((got.true == validation.common).mean())
    result["n_tokens"] = validation.n_tokens
    samples = []
    for i in evenly_spaced(len(got.true), settings.sample_prompts):
        about = {"item": i, "prompt": decode(tokenizer, validation[i]["input_ids"]), "reference": names[got.true[i]]}
        samples.append({**about, name: names[got.predicted[i]]})
    return {"task": "classification", **result, "samples": samples}, got.as_dict()


def metrics(got: Answers, names: list[str], confidence: float, resamples: int) -> dict[str, Any]:
    """All metrics of `got`; confusion[i][j] counts rows of class i answered as j.

    Macro averages are over the classes that occur, as truth or as answer (scikit-learn's rule); a class that is never
    answered has precision 0.
    """
    from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

    true, predicted, n = got.true, got.predicted, len(got.true)
    right = true == predicted
    loss = ratio_interval(got.nll, np.ones(n), positive=True, confidence=confidence, resamples=resamples)
    accuracy = wilson_interval(int(right.sum()), n, confidence)
    result: dict[str, Any] = {"loss": loss.value, "loss_interval": _bounds(loss)}
    result |= {"accuracy": accuracy.value, "accuracy_interval": _bounds(accuracy)}
    confusion = confusion_matrix(true, predicted, labels=range(len(names)))
    draws = _resampled(confusion, resamples)
    recall = np.diagonal(draws, axis1=1, axis2=2) / np.maximum(draws.sum(2), 1)
    present, involved = draws.sum(2) > 0, (draws.sum(2) + draws.sum(1)) > 0
    f1 = 2 * np.diagonal(draws, axis1=1, axis2=2) / np.maximum(draws.sum(1) + draws.sum(2), 1)
    spread = {
        "balanced_accuracy": (recall * present).sum(1) / np.maximum(present.sum(1), 1),
        "macro_f1": (f1 * involved).sum(1) / np.maximum(involved.sum(1), 1),
    }
    each = precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=0)
    values = {
        "balanced_accuracy": float(each[1][each[3] > 0].mean()),  # the mean recall of the classes that there are
        "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0)),
    }
    for key, value in values.items():
        low, high = np.quantile(spread[key], [(1 - confidence) / 2, (1 + confidence) / 2])
        result |= {key: value, f"{key}_interval": [float(low), float(high)] if n > 1 else None}
    for average in ("macro", "weighted"):
        precision, recalled, score, _ = precision_recall_fscore_support(
            true, predicted, average=average, zero_division=0
        )
        result |= {f"{average}_precision": float(precision), f"{average}_recall": float(recalled)}
        result |= {f"{average}_f1": float(score)}
    result["classes"] = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(s)}
        for name, p, r, f, s in zip(names, *each, strict=True)
    }
    return result | {
        "confusion": confusion.tolist(),
        "n_items": n,
        "item": "row",
        "confidence_level": confidence,
    }


def _resampled(confusion: np.ndarray, resamples: int) -> np.ndarray:
    """Confusion matrices (resamples, classes, classes) of rows drawn with replacement: one multinomial draw each.

    A row counts only by its cell, so drawing rows and drawing cells by their shares are the same thing.
    """
    n = int(confusion.sum())
    draws = np.random.default_rng(0).multinomial(n, confusion.ravel() / n, size=resamples)
    return draws.reshape(resamples, *confusion.shape)


def _bounds(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def loss_of(config: Config, data: Prepared) -> Loss:
    """Cross-entropy over rows, with the weights of `class_weights`."""
    weights = class_weights(data.train.counts()) if config.method.class_weights == "balanced" else None

    def loss(logits: "Tensor", labels: "Tensor", num_items: Any = None) -> "Tensor":
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


TASK = Task(
    name="classification",
    collate=labelled,
    inputs=lambda model, batch: batch,
    loss=loss_of,
    watch=watch,
    measure=measure,
)
