"""Causal language modelling: any rows, a decoder that learns the next token; loss, perplexity and bits per byte.

Examples are rows of tokens: how they are encoded, cut and laid out is in `data` (`encode`, `truncate`, `batches`), and
the accelerations are made for them.
"""

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.schema import Config
from hone.config.sections.eval import EvalSection
from hone.data.encode import Encoded, EncodeRule
from hone.data.encode import encode as encode_examples
from hone.data.prepare import Examples, Reading
from hone.data.records import REQUIRED
from hone.data.store import Store
from hone.data.tokenizer import token_byte_lengths
from hone.data.truncate import LongRow, TokenDataset, view
from hone.loss import causal_lm_loss
from hone.metrics.continuations import continuations, sample_prompts
from hone.metrics.generation_quality import quality
from hone.metrics.losses import ItemLosses, item_losses, measurement_of, perplexity_of
from hone.metrics.strided import StridedDataset, strided
from hone.models.inspect import vocabulary_size
from hone.models.kinds import DECODER
from hone.results import Items, Measurement
from hone.statistics.paired import items_of
from hone.tasks.task import Task


def encode(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    """Tokenise examples in the order given, by the rule of `data.encode`."""
    data = reading.data
    rule = EncodeRule(reading.template, data.completion_only_loss, data.append_eos)
    return encode_examples(rows, reading.tokenizer, rule, on_drop=reading.on_drop, on_bad_row=data.on_bad_row)


def views(config: Config, store: Store, tokenizer: PreTrainedTokenizerBase) -> tuple[TokenDataset, TokenDataset]:
    """Training examples as `on_long_row` and `batching` cut them, and the validation documents as they are measured."""
    length = config.data.max_length
    rule: LongRow = "windows" if config.data.batching == "windows" else config.data.on_long_row
    # a pure text is measured whole, in pieces; a row with a prompt as it is trained, but by strides also beyond that
    whole = store.val.supervised is None or rule == "windows" or config.eval.eval_stride is not None
    return view(store.train, length, rule), view(store.val, length, "split" if whole else rule)


def inputs(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """The key-value cache would switch the detection of packed examples off."""
    return {**batch, "use_cache": False}


# ---- measured --------------------------------------------------------------------------------------------------------


def losses_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    validation: TokenDataset,
    settings: EvalSection,
) -> ItemLosses:
    """Losses of each validation item; by overlapping windows if the settings have a stride."""
    lengths = token_byte_lengths(tokenizer, vocabulary_size(tokenizer))
    measured: TokenDataset | StridedDataset = validation
    if settings.eval_stride is not None:
        measured = strided(validation, window=validation.max_length, stride=settings.eval_stride)
    return item_losses(model, measured, lengths, tokens_per_batch=settings.eval_tokens_per_batch)


def watch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, validation: TokenDataset, settings: EvalSection
) -> dict[str, float]:
    """What evaluation during training reports: the loss of eval/*.json without resampling or generations."""
    return loss_and_perplexity(losses_of(model, tokenizer, validation, settings))


def loss_and_perplexity(losses: ItemLosses) -> dict[str, float]:
    loss = float(losses.nll.sum() / losses.n_tokens.sum())
    return {"loss": loss, "perplexity": perplexity_of(loss)}


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    validation: TokenDataset,
    settings: EvalSection,
) -> tuple[Measurement, Items]:
    """The numbers with a few greedy continuations, and the losses of each item."""
    losses = losses_of(model, tokenizer, validation, settings)
    found = measurement_of(
        "causal", losses, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples
    )
    prompts = sample_prompts(validation, tokenizer, settings.sample_prompts)
    written = continuations(model, tokenizer, [ids for ids, _ in prompts], settings.sample_max_new_tokens)
    samples = [sample.model_copy(update={"text": new.text}) for (_, sample), new in zip(prompts, written, strict=True)]
    if samples:
        looks = quality(
            [sample.text for sample in samples],
            prompts=[sample.prompt for sample in samples],
            references=[sample.reference or "" for sample in samples],
            ended=[new.ended for new in written],
            confidence=settings.confidence_level,
            resamples=settings.bootstrap_resamples,
        )
        found = found.model_copy(update={"samples": samples, "n_texts": len(samples), "quality": looks})
    return found, items_of(losses.item, losses.metrics())


TASK = Task(
    name="causal",
    forms=tuple(REQUIRED),
    encode=encode,
    views=views,
    model=DECODER,
    inputs=inputs,
    loss=lambda method, data: causal_lm_loss,
    watch=watch,
    measure=measure,
    pipeline_tag="text-generation",
    try_it="hone generate {run} -p '…'",
)
