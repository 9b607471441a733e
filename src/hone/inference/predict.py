"""Classes of texts: probabilities of a classifier, each text alone or in batches with the same result.

>>> predict(model, tokenizer, ["You will not believe this"])[0]["label"]           # doctest: +SKIP
'clickbait'
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.load import load_config
from hone.data.batches import padded_texts
from hone.data.records import text_column
from hone.data.sources import read_rows
from hone.data.special_tokens import padding_id, special_tokens
from hone.data.tokenizer import load_tokenizer, start_ids
from hone.errors import HoneError, placed
from hone.hardware import best_device
from hone.models.by_batch import numbers_by_batch
from hone.models.classifier_head import CLASSIFIES, architecture, class_names, set_padding
from hone.models.inspect import check_vocabulary, max_positions
from hone.models.load import load_finished, quiet_libraries
from hone.models.source import check_source
from hone.runs import RESOLVED

TOKENS_PER_BATCH = 4096


def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> list[dict[str, Any]]:
    """For each text its most probable class, that probability, those of all classes, and whether it was cut.

    Args:
        max_length: tokens that the model was trained to read at most; never more than its positions.

    Raises:
        HoneError: `model` is not a classifier.
    """
    require_classifier(model)
    if model.config.pad_token_id is None:
        set_padding(model, padding_id(tokenizer))
    special, window = special_tokens(tokenizer), max_positions(model)
    limit = min([n for n in (max_length, window) if n is not None], default=None)
    room = None if limit is None else limit - special.size
    ids = start_ids(tokenizer, list(texts), special=False)
    if any(not special.size and not row for row in ids):
        raise HoneError("a text is empty", fix="leave it out: there is nothing to classify")
    rows = [special.around(np.array(row[:room], np.int64)) for row in ids]
    names, logs = class_names(model), class_log_probabilities(model, rows, tokens_per_batch=TOKENS_PER_BATCH)
    return [
        {
            "label": names[int(row.argmax())],
            "probability": float(np.exp(row.max())),
            "probabilities": {name: float(p) for name, p in zip(names, np.exp(row), strict=True)},
            "truncated": room is not None and len(tokens) > room,
        }
        for row, tokens in zip(logs, ids, strict=True)
    ]


def ready_classifier(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Classifier and tokenizer of a run, an adapter, a model folder or a hub name, on the best device there is.

    Raises:
        HoneError: it does not load, is not a classifier, or the two do not belong together.
    """
    quiet_libraries()
    check_source(name)
    tokenizer, model = load_tokenizer(name), load_finished(name)
    require_classifier(model, name)
    check_vocabulary(model, tokenizer)
    return model.to(best_device()), tokenizer


def trained_length(folder: Path) -> int | None:
    """The longest example, in tokens, that the run in `folder` was trained on; None for other models."""
    path = folder / RESOLVED
    return load_config(path).data.max_length if path.is_file() else None


def read_texts(file: Path, folder: Path) -> list[str]:
    """The texts of a file of rows, from the column that the run in `folder` was trained on, or from `text`.

    Raises:
        HoneError: no column holds texts, or one of them is empty.
    """
    path = folder / RESOLVED
    column_mapping = load_config(path).data.column_mapping if path.is_file() else {}
    texts = []
    for row in read_rows([file], on_bad_row="error", on_skip=lambda reason, where: None):
        with placed(row.where):
            name = text_column(row.columns, column_mapping)
        text = row.columns[name]
        if not isinstance(text, str) or not text.strip():
            raise HoneError(f"the row has no text in its column '{name}'", where=row.where, fix="leave the row out")
        texts.append(text)
    return texts


def require_classifier(model: PreTrainedModel, name: str | None = None) -> None:
    """Raise a HoneError unless `model` gives one score for each class of a text."""
    if not architecture(model).endswith(CLASSIFIES):
        raise HoneError(
            f"{architecture(model)} is not a classifier: it has no classes to choose from",
            where=name,
            fix="name a run of task: classification; texts are continued by `hone generate`",
        )


def class_log_probabilities(model: PreTrainedModel, rows: Sequence[np.ndarray], *, tokens_per_batch: int) -> np.ndarray:
    """log p of each class, (n, classes) float64, for framed ids (T,) each; without gradients or dropout.

    Rows of like length share a batch, padded on the right; the mask hides padding by position.
    """

    def of_batch(indices: np.ndarray) -> np.ndarray:
        batch = padded_texts([rows[i] for i in indices], model.config.pad_token_id)
        scores = model(**{name: values.to(model.device) for name, values in batch.items()}).logits
        logs: np.ndarray = scores.double().log_softmax(-1).cpu().numpy()
        return logs

    lengths, columns = np.array([len(row) for row in rows]), len(class_names(model))
    return numbers_by_batch(model, lengths, of_batch, tokens_per_batch=tokens_per_batch, columns=columns)
