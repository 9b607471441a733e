"""An encoder-decoder on held-out rows: loss of the true targets, and how near its own targets come to them.

Loss, perplexity and bits per byte are taken with the true tokens before each one. Then the model writes targets for
evenly spaced rows, greedily: exact match, chrF and BLEU over all of them (sacrebleu), ROUGE-L. Texts are compared
without white space around them.
"""

import functools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.batches import by_length, pairs
from hone.data.seq2seq import PairDataset
from hone.data.special_tokens import padding_id
from hone.data.tokenizer import token_byte_lengths
from hone.data.truncate import IGNORE_INDEX
from hone.loss import seq2seq_loss
from hone.metrics.continuations import decode, evenly_spaced, greedy
from hone.metrics.losses import LOGIT_ELEMENTS, ItemLosses, summarize
from hone.models.inspect import vocabulary_size
from hone.statistics.intervals import Interval, ratio_interval, wilson_interval
from hone.tasks.causal import loss_and_perplexity
from hone.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORD = re.compile(r"[a-z0-9]+")


def decoder_inputs(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch with what its decoder reads: the labels shifted right by the model's own rule."""
    shifted = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    return {**batch, "decoder_input_ids": shifted, "use_cache": False}


def losses_of(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", dataset: PairDataset, config: Config
) -> ItemLosses:
    """Sums of token losses for each row, without gradients or dropout."""
    import torch

    from hone.loss import target_nll

    byte_lengths = token_byte_lengths(tokenizer, vocabulary_size(tokenizer))
    nll, n_tokens, n_bytes = np.zeros(len(dataset)), np.zeros(len(dataset), int), np.zeros(len(dataset), int)
    budget = min(config.eval.eval_tokens_per_batch, LOGIT_ELEMENTS // model.get_input_embeddings().weight.shape[0])
    training, pad = model.training, padding_id(tokenizer)
    model.eval()
    with torch.inference_mode():
        for indices in by_length(dataset.lengths, budget):
            batch = pairs([dataset[i] for i in indices], pad)
            del batch["num_tokens"]
            labels = torch.as_tensor(batch["labels"])
            inputs = decoder_inputs(model, {k: torch.as_tensor(v).to(model.device) for k, v in batch.items()})
            logits = model(**{k: v for k, v in inputs.items() if k != "labels"}).logits
            nll[indices] = target_nll(logits, inputs["labels"]).sum(-1, dtype=torch.float64).cpu().numpy()
            counted = (labels != IGNORE_INDEX).numpy()
            n_tokens[indices] = counted.sum(-1)
            n_bytes[indices] = np.where(counted, byte_lengths[np.where(counted, labels.numpy(), 0)], 0).sum(-1)
    model.train(training)
    return ItemLosses(nll, n_tokens, n_bytes, "row")


def watch(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", validation: PairDataset, config: Config
) -> dict[str, float]:
    """What evaluation during training reports."""
    return loss_and_perplexity(losses_of(model, tokenizer, validation, config))


def measure(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    validation: PairDataset,
    config: Config,
    name: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of eval/<name>.json, and of each row."""
    settings = config.eval
    losses = losses_of(model, tokenizer, validation, config)
    result = summarize(losses, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples).as_dict()
    count = max(settings.eval_generate_samples, settings.sample_prompts)
    chosen = evenly_spaced(len(validation), count)
    sources = [validation[i]["input_ids"].tolist() for i in chosen]
    texts = greedy(model, tokenizer, sources, config.data.max_target_length)
    references = [decode(tokenizer, validation.reference(i)) for i in chosen]
    per_row: dict[str, Any] = {}
    if settings.eval_generate_samples and chosen:
        scores, per_row = text_scores(texts, references, settings.confidence_level, settings.bootstrap_resamples)
        result |= scores
    result["samples"] = [
        {
            "item": chosen[j],
            "prompt": decode(tokenizer, validation[chosen[j]]["input_ids"]),
            "reference": references[j],
            name: texts[j],
        }
        for j in evenly_spaced(len(chosen), settings.sample_prompts)
    ]
    return {"task": "seq2seq", **result}, {**losses.as_dict(), "written": per_row}


def text_scores(
    texts: list[str], references: list[str], confidence: float, resamples: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores over all texts with their intervals, and those of each text for paired comparisons.

    exact_match and rouge_l are shares (0 to 1); chrf and bleu are sacrebleu's, 0 to 100, over the whole set (a ratio of
    sums over all texts, without an interval); chrf_mean is the mean of the texts' own chrF.
    """
    from sacrebleu.metrics import BLEU, CHRF

    texts, references = [t.strip() for t in texts], [r.strip() for r in references]
    chrf, bleu = CHRF(), BLEU(effective_order=False)
    exact = np.array([t == r for t, r in zip(texts, references, strict=True)])
    each_chrf = np.array([chrf.sentence_score(t, [r]).score for t, r in zip(texts, references, strict=True)])
    each_rouge = np.array([rouge_l(t, r) for t, r in zip(texts, references, strict=True)])
    mean = functools.partial(ratio_interval, confidence=confidence, resamples=resamples)
    ones = np.ones(len(texts))
    intervals = {
        "exact_match": wilson_interval(int(exact.sum()), len(exact), confidence),
        "chrf_mean": mean(each_chrf, ones),
        "rouge_l": mean(each_rouge, ones),
    }
    scores: dict[str, Any] = {"n_written": len(texts)}
    for key, interval in intervals.items():
        scores |= {key: interval.value, f"{key}_interval": _bounds(interval)}
    scores["chrf"] = chrf.corpus_score(texts, [references]).score
    scores["bleu"] = bleu.corpus_score(texts, [references]).score
    scores["signatures"] = [str(chrf.get_signature()), str(bleu.get_signature())]
    per_row = {"exact_match": exact.astype(float), "chrf_mean": each_chrf, "rouge_l": each_rouge}
    return scores, {key: values.tolist() for key, values in per_row.items()}


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


def _bounds(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


TASK = Task(
    name="seq2seq",
    collate=pairs,
    inputs=decoder_inputs,
    loss=lambda config, data: seq2seq_loss,
    watch=watch,
    measure=measure,
)
