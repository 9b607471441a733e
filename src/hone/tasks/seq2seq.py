"""Sequence to sequence: rows of a source and a target, an encoder-decoder, and how near its own targets come.

A document of the store is its source (mask 0) and then its target (mask 1), both without special tokens; the data set
adds those of the tokenizer. A target that was cut has no end token: the model must not learn to stop there.

Loss, perplexity and bits per byte are taken with the true tokens before each one. Then the model writes targets for
evenly spaced rows, greedily: exact match, chrF and BLEU over all of them (sacrebleu), ROUGE-L. Texts are compared
without white space around them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

import numpy as np
import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.schema import Config
from hone.config.sections.eval import EvalSection
from hone.data.batches import padded_texts
from hone.data.dataset import Dataset, Preview
from hone.data.encode import ROWS_PER_BATCH, Encoded
from hone.data.prepare import Examples, Reading
from hone.data.records import Pair, SourceTarget
from hone.data.special_tokens import SpecialTokens, padding_id, special_tokens
from hone.data.store import Split, Store
from hone.data.templates import render
from hone.data.tokenizer import start_ids, token_byte_lengths
from hone.data.truncate import IGNORE_INDEX, count_ones
from hone.errors import HoneError, placed
from hone.loss import seq2seq_loss, target_nll
from hone.metrics.continuations import decode, evenly_spaced, greedy
from hone.metrics.losses import ItemLosses, loss_columns, losses_by_batch, measurement_of
from hone.models.inspect import vocabulary_size
from hone.models.kinds import ENCODER_DECODER
from hone.results import Items, Kind, Level, Measurement, Sample, level_of
from hone.statistics.intervals import ratio_interval, wilson_interval
from hone.statistics.paired import Metric, items_of
from hone.tasks.causal import loss_and_perplexity
from hone.tasks.task import Task

EXACT_MATCH = Kind(heading="exact match", higher_is_better=True, top=1.0)
CHRF_MEAN = Kind(heading="mean chrF", higher_is_better=True, form=".1f", top=100.0)
CHRF_OF_ALL = Kind(heading="chrF", higher_is_better=True, form=".1f", top=100.0)
BLEU_OF_ALL = Kind(heading="BLEU", higher_is_better=True, form=".1f", top=100.0)
ROUGE_L = Kind(heading="ROUGE-L", higher_is_better=True, top=1.0)
WORD = re.compile(r"[a-z0-9]+")


# ---- rows to tokens --------------------------------------------------------------------------------------------------


def encode(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    """Tokenise sources and targets in the order given; what a template puts before the answer is the source."""
    texts = _texts(rows, reading.template, reading.on_drop)
    while batch := list(islice(texts, ROWS_PER_BATCH)):
        ids = start_ids(reading.tokenizer, [text for pair in batch for text in pair], special=False)
        for source, target in zip(ids[::2], ids[1::2], strict=True):
            supervised = np.arange(len(source) + len(target)) >= len(source)
            yield Encoded(np.array(source + target, np.int64), supervised, True)


def _texts(rows: Examples, template: str, on_drop: Callable[[str, str], None]) -> Iterator[tuple[str, str]]:
    for row, example in rows:
        pair = Pair(example.source, example.target) if isinstance(example, SourceTarget) else example
        source, target = (segment.text for segment in render(pair, template, None))
        if target.strip():
            yield source, target
        else:
            on_drop("empty target: nothing to learn", row.where)


# ---- the data set ----------------------------------------------------------------------------------------------------


class PairItem(TypedDict):
    """input_ids (S,) int64, the source; labels (T,) int64, the target, not shifted; both with special tokens."""

    input_ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, repr=False)
class PairDataset(Dataset):
    """A source and its target, each between its special tokens. `sizes` are of both as stored: whole, and without.

    n_source: (n,) int64, of these the source's.
    """

    n_source: np.ndarray
    special: SpecialTokens
    max_length: int
    max_target_length: int

    def __getitem__(self, index: int) -> PairItem:
        source = self._part(index, source=True)[: self.max_length - self.special.size]
        target = self._part(index, source=False)
        labels = self.special.around(target[: self.max_target_length])
        if len(labels) > self.max_target_length:
            labels = self.special.around(target, ends=False)[: self.max_target_length]
        return {"input_ids": self.special.around(source), "labels": labels}

    def _part(self, index: int, *, source: bool) -> np.ndarray:
        start, size, n = (int(array[index]) for array in (self.starts, self.sizes, self.n_source))
        return self.split.tokens[slice(start, start + n) if source else slice(start + n, start + size)].astype(np.int64)

    def reference(self, index: int) -> np.ndarray:
        """Ids of the whole target, however long, without special tokens."""
        return self._part(index, source=False)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: source and target tokens of each row together, as far as they are kept."""
        source = np.minimum(self.n_source + self.special.size, self.max_length)
        total: np.ndarray = source + self.n_supervised()
        return total

    def n_supervised(self) -> np.ndarray:
        """(n,) int64: target tokens that count, special tokens included."""
        return np.minimum(self.sizes - self.n_source + self.special.size, self.max_target_length)

    def preview(self, index: int) -> Preview:
        item = self[index]
        supervised = np.arange(len(item["input_ids"]) + len(item["labels"])) >= len(item["input_ids"])
        return Preview(np.concatenate([item["input_ids"], item["labels"]]), supervised, "source, then target")

    def described(self) -> str:
        return f"sources of up to {self.max_length} tokens, targets of up to {self.max_target_length}"


def views(config: Config, store: Store, tokenizer: PreTrainedTokenizerBase) -> tuple[PairDataset, PairDataset]:
    """Training and validation rows, cut (or dropped) to `max_length` and `max_target_length`."""
    data, special = config.data, special_tokens(tokenizer, must_end=True)
    with placed(config.where("max_target_length") or config.where("max_length")):
        train, validation = (
            view(split, special, data.max_length, data.max_target_length, drop_long=data.on_long_row == "drop")
            for split in (store.train, store.val)
        )
    return train, validation


def view(
    split: Split, special: SpecialTokens, max_length: int, max_target_length: int, *, drop_long: bool
) -> PairDataset:
    """The rows of a split; a source or target beyond its length is cut, or its row dropped, and counted.

    Raises:
        HoneError: the special tokens alone fill one of the lengths.
    """
    if min(max_length, max_target_length) <= special.size:
        raise HoneError(
            f"max_length {max_length} or max_target_length {max_target_length} leaves no space for a text",
            fix=f"set both above {special.size}",
        )
    starts, sizes = split.starts[:-1], np.diff(split.starts)
    n_target = sizes if split.supervised is None else count_ones(split.supervised, starts, split.starts[1:])
    n_source = sizes - n_target
    long_source, long_target = n_source > max_length - special.size, n_target > max_target_length - special.size
    left_out = {}
    for what, limit, long in (("sources", max_length, long_source), ("targets", max_target_length, long_target)):
        if long.any():
            left_out[f"{what} longer than {limit} tokens, {'dropped' if drop_long else 'truncated'}"] = int(long.sum())
    documents = np.arange(len(sizes))
    rows = PairDataset(
        split, starts, sizes, documents, n_source, special, max_length, max_target_length, left_out=left_out
    )
    return rows.select(~(long_source | long_target)) if drop_long else rows


# ---- batches and loss ------------------------------------------------------------------------------------------------


def collate(items: Sequence[PairItem], pad_token_id: int) -> dict[str, Tensor | int]:
    """Sources and targets: input_ids, attention_mask (B, S); labels (B, T), -100 where nothing is to be written."""
    targets = padded_texts([item["labels"] for item in items], IGNORE_INDEX)
    return {
        **padded_texts([item["input_ids"] for item in items], pad_token_id),
        "labels": targets["input_ids"],
        "num_tokens": sum(len(item["input_ids"]) + len(item["labels"]) for item in items),
    }


def decoder_inputs(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch with what its decoder reads: the labels shifted right by the model's own rule."""
    shifted = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    return {**batch, "decoder_input_ids": shifted, "use_cache": False}


# ---- measured --------------------------------------------------------------------------------------------------------


def losses_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: PairDataset, *, tokens_per_batch: int
) -> ItemLosses:
    """Sums of token losses for each row, without gradients or dropout."""
    byte_lengths = token_byte_lengths(tokenizer, vocabulary_size(tokenizer))
    pad = padding_id(tokenizer)

    def of_batch(indices: np.ndarray) -> np.ndarray:
        batch = collate([dataset[i] for i in indices], pad)
        del batch["num_tokens"]
        labels = torch.as_tensor(batch["labels"])
        inputs = decoder_inputs(model, {k: torch.as_tensor(v).to(model.device) for k, v in batch.items()})
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        nll = target_nll(logits, inputs["labels"]).sum(-1, dtype=torch.float64)
        counted = (labels != IGNORE_INDEX).numpy()
        n_bytes = np.where(counted, byte_lengths[np.where(counted, labels.numpy(), 0)], 0)
        return loss_columns(nll, labels, n_bytes)

    return ItemLosses(*losses_by_batch(model, dataset.lengths, of_batch, tokens_per_batch=tokens_per_batch), "row")


def watch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, validation: PairDataset, settings: EvalSection
) -> dict[str, float]:
    """What evaluation during training reports."""
    return loss_and_perplexity(losses_of(model, tokenizer, validation, tokens_per_batch=settings.eval_tokens_per_batch))


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    validation: PairDataset,
    settings: EvalSection,
) -> tuple[Measurement, Items]:
    """The numbers with a few written targets, and those of each row, or of each row for which a target was written."""
    losses = losses_of(model, tokenizer, validation, tokens_per_batch=settings.eval_tokens_per_batch)
    confidence, resamples = settings.confidence_level, settings.bootstrap_resamples
    found = measurement_of("seq2seq", losses, confidence=confidence, resamples=resamples)
    count = max(settings.eval_generate_samples, settings.sample_prompts)
    chosen = evenly_spaced(len(validation), count)
    sources = [validation[i]["input_ids"].tolist() for i in chosen]
    texts = greedy(model, tokenizer, sources, validation.max_target_length)
    references = [decode(tokenizer, validation.reference(i)) for i in chosen]
    per_row, metrics, signatures = losses.metrics(), found.metrics, list[str]()
    if settings.eval_generate_samples and chosen:
        each = text_metrics(texts, references)
        scores, signatures = text_scores(texts, references, each, confidence, resamples)
        per_row, metrics = {**per_row, **each}, {**metrics, **scores}
    samples = [
        Sample(
            item=chosen[j],
            prompt=decode(tokenizer, validation[chosen[j]]["input_ids"]),
            reference=references[j],
            text=texts[j],
        )
        for j in evenly_spaced(len(chosen), settings.sample_prompts)
    ]
    found = found.model_copy(update={"metrics": metrics, "signatures": signatures, "samples": samples})
    return found, items_of("row", per_row)


def text_metrics(texts: list[str], references: list[str]) -> dict[str, Metric]:
    """Exact match, chrF and ROUGE-L of each text, white space around it aside."""
    both = [(text.strip(), reference.strip()) for text, reference in zip(texts, references, strict=True)]
    chrf = CHRF()
    return {
        "exact_match": Metric(EXACT_MATCH, np.array([text == reference for text, reference in both])),
        "chrf_mean": Metric(CHRF_MEAN, np.array([chrf.sentence_score(t, [r]).score for t, r in both])),
        "rouge_l": Metric(ROUGE_L, np.array([rouge_l(text, reference) for text, reference in both])),
    }


def text_scores(
    texts: list[str], references: list[str], each: dict[str, Metric], confidence: float, resamples: int
) -> tuple[dict[str, Level], list[str]]:
    """Scores over all texts, and the signatures of those that are sacrebleu's.

    exact_match and rouge_l are shares (0 to 1); chrf and bleu are sacrebleu's, 0 to 100, over the whole set (a ratio of
    sums over all texts, without an interval); chrf_mean is the mean of the texts' own chrF.

    Args:
        each: `text_metrics` of them.
    """
    n, ones = len(texts), np.ones(len(texts))
    found = {}
    for name, metric in each.items():
        if name == "exact_match":
            share = wilson_interval(int(metric.numerator.sum()), n, confidence)
        else:
            share = ratio_interval(metric.numerator, ones, confidence=confidence, resamples=resamples)
        found[name] = level_of(metric.kind, share, n)
    texts, references = [t.strip() for t in texts], [r.strip() for r in references]
    chrf, bleu = CHRF(), BLEU(effective_order=False)
    for name, kind, score in (("chrf", CHRF_OF_ALL, chrf), ("bleu", BLEU_OF_ALL, bleu)):
        found[name] = Level(kind=kind, value=score.corpus_score(texts, [references]).score, n_items=n)
    return found, [str(chrf.get_signature()), str(bleu.get_signature())]


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of lower-case words and numbers (Lin 2004), without stemming.

    >>> round(rouge_l("the cat sat", "the cat on the mat sat"), 3)
    0.667
    """
    a, b = WORD.findall(text.lower()), WORD.findall(reference.lower())
    row = [0] * (len(b) + 1)
    for word in a:
        previous = row
        row = [0]
        for j, other in enumerate(b):
            row.append(previous[j] + 1 if word == other else max(row[-1], previous[j + 1]))
    return 2 * row[-1] / (len(a) + len(b)) if a or b else 0.0


TASK = Task(
    name="seq2seq",
    forms=("source_target", "instruction", "pair"),
    encode=encode,
    views=views,
    model=ENCODER_DECODER,
    collate=collate,
    inputs=decoder_inputs,
    loss=lambda method, data: seq2seq_loss,
    watch=watch,
    measure=measure,
    answer=lambda validation, index, tokenizer: decode(tokenizer, validation[index]["labels"]),
    pipeline_tag="text2text-generation",
    try_it="hone generate {run} -p '…'",
)
