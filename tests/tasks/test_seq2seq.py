"""Encoder-decoders: ids of both halves by hand, the loss, generated texts and their scores."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hone
from hone.data.special_tokens import SpecialTokens, padding_id, special_tokens
from hone.loss import seq2seq_loss
from hone.metrics.continuations import greedy
from hone.tasks.seq2seq import collate, decoder_inputs, rouge_l, text_metrics, text_scores
from tiny_tasks import BART, QUIET, T5, framed_tokenizer, pair_rows

KINDS = {  # tokenizer's frame, the architecture, what its decoder starts with, how it spells a target "c d"
    "t5": (("", "</s>"), T5, 1, [6, 7, 2]),
    "bart": (("<s>", "</s>"), BART, 2, [0, 6, 7, 2]),
}


def prepared(
    kind: str, tmp_path: Path, write_rows: Any, rows: list[dict[str, Any]], **more: Any
) -> tuple[Any, Any, Any]:
    """Data, tokenizer and model of a from-scratch `kind`."""
    from hone.models.build import build_model
    from hone.models.kinds import ENCODER_DECODER

    around, overrides, _, _ = KINDS[kind]
    tokenizer = framed_tokenizer(*around)
    tokenizer.save_pretrained(tmp_path / "tok")
    config = hone.load_config(
        {
            **QUIET,
            "task": "seq2seq",
            "model_type": kind,
            "config_overrides": overrides,
            "tokenizer_name_or_path": str(tmp_path / "tok"),
            "train_file": str(write_rows("train.jsonl", rows)),
            "validation_split_percentage": 0.0,
            "max_target_length": 32,
            **more,
        }
    )
    data = hone.prepare(config)
    return data, tokenizer, build_model(config, ENCODER_DECODER, tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_both_halves_by_hand(kind: str, tmp_path: Path, write_rows: Any) -> None:
    _, _, start, target = KINDS[kind]
    head = [0] if kind == "bart" else []
    rows = [{"source": "a b", "target": "c d"}, {"source": "a b a", "target": "e"}]
    data, tokenizer, model = prepared(kind, tmp_path, write_rows, rows)
    assert data.train[0]["input_ids"].tolist() == [*head, 4, 5, 2]
    assert data.train[0]["labels"].tolist() == target
    batch = collate([data.train[0], data.train[1]], padding_id(tokenizer))
    batch.pop("num_tokens")
    assert batch["input_ids"].tolist() == [[*head, 4, 5, 2, 1], [*head, 4, 5, 4, 2]]
    assert batch["attention_mask"].tolist() == [[1] * (len(head) + 3) + [0], [1] * (len(head) + 4)]
    assert batch["labels"].tolist() == [target, [*head, 8, 2, -100]]
    inputs = decoder_inputs(model, batch)
    assert inputs["decoder_input_ids"].tolist() == [[start, *target[:-1]], [start, *head, 8, 2]]
    assert model.config.decoder_start_token_id == start


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_that_of_plain_transformers(kind: str, tmp_path: Path, write_rows: Any) -> None:
    rows = [{"source": "a b", "target": "c d"}, {"source": "a b a c", "target": "e"}, {"source": "", "target": "a a a"}]
    data, tokenizer, model = prepared(kind, tmp_path, write_rows, rows)
    batch = collate([data.train[i] for i in range(3)], padding_id(tokenizer))
    batch.pop("num_tokens")
    plain = model(**batch).loss
    inputs = decoder_inputs(model, dict(batch))
    labels = inputs.pop("labels")
    ours = seq2seq_loss(model(**inputs).logits, labels)
    assert math.isclose(float(plain.detach()), float(ours.detach()), rel_tol=1e-6)
    alone = [
        seq2seq_loss(model(**_alone(model, data.train[i], tokenizer)).logits, _labels(data.train[i]), 1)
        for i in range(3)
    ]
    n = sum(len(data.train[i]["labels"]) for i in range(3))
    assert math.isclose(float(sum(alone).detach()) / n, float(ours.detach()), rel_tol=1e-5), "padding is invisible"


def _labels(item: Any) -> Any:
    import torch

    return torch.tensor(item["labels"])[None]


def _alone(model: Any, item: Any, tokenizer: Any) -> dict[str, Any]:
    inputs = decoder_inputs(model, {**collate([item], padding_id(tokenizer))})
    return {k: v for k, v in inputs.items() if k not in ("labels", "num_tokens")}


def test_lengths_are_cut_apart_and_a_cut_target_has_no_end(tmp_path: Path, write_rows: Any) -> None:
    rows = [
        {"source": "a a a a", "target": "b b b b"},
        {"source": "a", "target": "b b b"},
        {"source": "c", "target": "d"},
    ]
    data, _, _ = prepared("bart", tmp_path, write_rows, rows, max_length=5, max_target_length=5)
    assert data.train[0]["input_ids"].tolist() == [0, 4, 4, 4, 2], "a cut source is closed all the same"
    assert data.train[0]["labels"].tolist() == [0, 5, 5, 5, 5]
    assert data.train[1]["labels"].tolist() == [0, 5, 5, 5, 2]
    assert data.train.n_supervised().tolist() == [5, 5, 3]
    assert data.train.lengths.tolist() == [10, 8, 6]
    assert data.train.left_out == {
        "sources longer than 5 tokens, truncated": 1,
        "targets longer than 5 tokens, truncated": 1,
    }
    dropped, _, _ = prepared("bart", tmp_path, write_rows, rows, max_length=5, max_target_length=5, on_long_row="drop")
    assert len(dropped.train) == 2


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"prompt": "a b", "completion": "c"}, [4, 5, 2]),
        ({"instruction": "a", "input": "b", "output": "c"}, [4, 5, 2]),
        ({"source": "a b", "target": "c", "text": "e", "label": 1}, [4, 5, 2]),
    ],
)
def test_forms_of_rows(row: dict[str, Any], source: list[int], tmp_path: Path, write_rows: Any) -> None:
    data, _, _ = prepared(
        "t5", tmp_path, write_rows, [row, {**row, **{k: "d" for k in ("completion", "output", "target") if k in row}}]
    )
    assert data.train[0]["input_ids"].tolist() == source
    assert data.train[0]["labels"].tolist() == [6, 2]


def test_byte_level_tokenizers_get_an_end_token_on_both_sides(tokenizer: Any) -> None:
    assert special_tokens(tokenizer, must_end=True) == SpecialTokens((), (0,))


# ---- scores of texts ----------------------------------------------------------------------------------------------


def test_rouge_l_by_hand() -> None:
    assert rouge_l("the cat sat", "The cat, on the mat, sat!") == pytest.approx(2 * 3 / (3 + 6))
    assert rouge_l("x y z", "a b") == 0.0
    assert rouge_l("", "") == 0.0
    assert rouge_l("b a", "a b") == pytest.approx(0.5), "order counts"


def test_text_scores_are_sacrebleus() -> None:
    import sacrebleu

    texts = ["the cat sat on the mat", "a dog", " exactly this one here "] * 4
    references = ["the cat is on the mat", "the dog ran away", "exactly this one here"] * 4
    each = text_metrics(texts, references)
    scores, signatures = text_scores(texts, references, each, 0.95, 200)
    assert len(signatures) == 2 and all("version:" in signature for signature in signatures)
    stripped = [t.strip() for t in texts]
    assert scores["chrf"].value == sacrebleu.corpus_chrf(stripped, [references]).score
    assert scores["bleu"].value == sacrebleu.corpus_bleu(stripped, [references]).score
    assert scores["exact_match"].value == pytest.approx(1 / 3)
    assert each["exact_match"].numerator.tolist() == [0.0, 0.0, 1.0] * 4
    low, high = scores["exact_match"].bounds or (1, 0)
    assert low < 1 / 3 < high
    assert scores["rouge_l"].value == pytest.approx(np.mean(each["rouge_l"].numerator))


# ---- whole runs ---------------------------------------------------------------------------------------------------


def overfit(kind: str, overrides: dict[str, Any], tmp_path: Path, tokenizer: Any, write_rows: Any, **more: Any) -> Any:
    tokenizer.save_pretrained(tmp_path / "tok")
    config = {
        **QUIET,
        "task": "seq2seq",
        "model_type": kind,
        "config_overrides": overrides,
        "tokenizer_name_or_path": str(tmp_path / "tok"),
        "train_file": str(write_rows("train.jsonl", pair_rows(32))),
        "validation_file": str(write_rows("val.jsonl", pair_rows(36)[32:])),
        "max_target_length": 24,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "linear",
        "eval_strategy": "no",
        "logging_steps": 50,
        "output_dir": str(tmp_path / "run"),
        **more,
    }
    return hone.train(hone.load_config(config))


@pytest.mark.slow
def test_32_rows_are_learned_by_heart(tmp_path: Path, tokenizer: Any, write_rows: Any) -> None:
    """A T5 from scratch writes every one of its training targets, with the model loaded from its files."""
    run = overfit("t5", T5, tmp_path, tokenizer, write_rows, num_train_epochs=150.0)
    model, saved = hone.load(run)
    config = hone.load_config(run.folder / "config.resolved.yaml")
    data = hone.prepare(config)
    texts = greedy(model, saved, [data.train[i]["input_ids"].tolist() for i in range(32)], 24)
    assert sum(text == row["target"] for text, row in zip(texts, pair_rows(32), strict=True)) == 32


def test_numbers_of_a_run(tmp_path: Path, tokenizer: Any, write_rows: Any) -> None:
    """Measured from the files by plain transformers: the mean loss of the held-out targets, row by row."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    run = overfit(
        "bart", BART, tmp_path, tokenizer, write_rows, num_train_epochs=2.0, sample_prompts=1, eval_strategy="epoch"
    )
    tuned, change = run.tuned, run.comparison
    assert tuned and change
    plain = AutoModelForSeq2SeqLM.from_pretrained(run.folder).eval()
    saved = AutoTokenizer.from_pretrained(run.folder)
    nats, tokens = 0.0, 0
    for row in pair_rows(36)[32:]:
        ids, labels = (torch.tensor([[*saved(row[k])["input_ids"], saved.eos_token_id]]) for k in ("source", "target"))
        with torch.no_grad():
            nats += float(plain(input_ids=ids, labels=labels).loss) * labels.shape[1]
        tokens += labels.shape[1]
    assert tuned.n_tokens == tokens
    assert math.isclose(tuned.value("loss"), nats / tokens, rel_tol=1e-5)
    assert tuned.n_bytes == sum(len(row["target"]) for row in pair_rows(36)[32:])
    assert tuned.metrics["chrf"].n_items == 4
    assert list(change.metrics) == ["loss", "bits_per_byte", "exact_match", "chrf_mean", "rouge_l"]
    watched = [line["eval_loss"] for line in run.metric_lines() if "eval_loss" in line]
    assert math.isclose(watched[-1], tuned.value("loss"), rel_tol=1e-5)
    assert type(hone.load(run)[0]).__name__ == "BartForConditionalGeneration"
