"""Classifiers: their rows, pooling by position, loss and weights, metrics, heads; against transformers and sklearn."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hone
from hone.data.special_tokens import SpecialTokens, padding_id, special_tokens
from hone.loss import classification_loss
from hone.models.kinds import CLASSIFIER
from hone.results import ClassScores
from hone.statistics.paired import compare_items, items_of
from hone.tasks.classification import Answers, class_order, class_report, class_weights, collate, metrics
from tiny_tasks import BERT, GPT2_DRY, QUIET, WORDS, bert_tokenizer, labelled_rows

NAMES = ["bad", "good"]


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a classifier's head, as after masked pre-training."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
    words = [w for rows in WORDS.values() for w in rows] + ["day", "is", "indeed"] + [str(i) for i in range(40)]
    tokenizer = bert_tokenizer(words)
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **BERT)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(folder: Path, write_rows: Callable[..., Path], n: int = 36, **more: Any) -> dict[str, Any]:
    return {
        **QUIET,
        "task": "classification",
        "model_name_or_path": str(folder),
        "train_file": str(write_rows("train.jsonl", labelled_rows(n))),
        "validation_file": str(write_rows("val.jsonl", labelled_rows(n + 12)[n:])),
        "num_train_epochs": 1.0,
        **more,
    }


# ---- rows ---------------------------------------------------------------------------------------------------------


def test_frame_is_what_the_tokenizer_itself_adds(tokenizer: Any, bert_folder: Path) -> None:
    from transformers import AutoTokenizer

    bert = AutoTokenizer.from_pretrained(bert_folder)
    assert special_tokens(bert) == SpecialTokens((2,), (3,))
    assert special_tokens(tokenizer) == SpecialTokens()
    assert special_tokens(tokenizer, must_end=True) == SpecialTokens((), (tokenizer.eos_token_id,))
    assert (padding_id(bert), padding_id(tokenizer)) == (0, tokenizer.eos_token_id)


def test_padding_is_not_the_unknown_token(tokenizer: Any) -> None:
    """Padding with the unknown token is common advice, and texts do end with unknown characters."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"unk_token": "a", "pad_token": "a"})
    assert padding_id(other) == other.eos_token_id != other.pad_token_id


def test_class_order_is_by_value_for_numbers() -> None:
    assert class_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert class_order(["b", "10", "9"]) == ["10", "9", "b"]


def test_rows_are_framed_cut_and_numbered(bert_folder: Path, write_rows: Any) -> None:
    config = hone.load_config(settings(bert_folder, write_rows, n=6, max_length=6, output_dir="unused"))
    data = hone.prepare(config)
    assert data.train.outputs == NAMES
    assert data.train.classes.tolist() == [0, 1, 1, 0, 1, 1]
    ids = data.train[4]["input_ids"]  # "day 4 is bright indeed indeed indeed indeed", cut to four words
    assert len(ids) == 6
    assert (ids[0], ids[-1]) == (2, 3), "the closing token survives the cut"
    assert data.train.left_out["texts longer than 4 tokens, truncated"] == 4  # rows 1 to 4, of 5 to 8 words
    dropped = hone.prepare(
        hone.load_config({**settings(bert_folder, write_rows, n=6, max_length=6), "on_long_row": "drop"})
    )
    assert len(dropped.train) == 2
    batch = collate([data.train[0], data.train[4]], pad_token_id=0)
    assert batch["labels"].tolist() == [0, 1]  # type: ignore[union-attr]
    assert batch["attention_mask"].sum(1).tolist() == [6, 6]  # type: ignore[union-attr]


def test_whole_numbers_and_mapped_columns(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    rows = [{"headline": f"row {i}", "category": i % 11} for i in range(44)]
    config = settings(model_folder, write_rows, output_dir="unused", validation_split_percentage=0.0)
    del config["validation_file"]
    config |= {
        "train_file": str(write_rows("n.jsonl", rows)),
        "column_mapping": {"text": "headline", "label": "category"},
    }
    data = hone.prepare(hone.load_config(config))
    assert data.train.outputs == [str(i) for i in range(11)]
    assert data.train.classes.tolist() == [i % 11 for i in range(44)]
    again = hone.prepare(hone.load_config(config))
    assert again.cached
    assert again.train.classes.tolist() == data.train.classes.tolist()


def test_the_split_keeps_labels_with_their_texts(model_folder: Path, write_rows: Any) -> None:
    config = settings(model_folder, write_rows, n=60, output_dir="unused", validation_split_percentage=25.0)
    del config["validation_file"]
    data = hone.prepare(hone.load_config(config))
    from hone.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model_folder)
    truth = {row["text"]: row["label"] for row in labelled_rows(60)}
    seen = 0
    for side in (data.train, data.validation):
        for i in range(len(side)):
            text = tokenizer.decode(side[i]["input_ids"])
            assert truth[text] == side.names[side[i]["labels"]]
            seen += 1
    assert (seen, len(data.validation)) == (60, 15)


# ---- pooling and loss ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_pooled_is_the_last_real_token_also_when_padding_is_the_end_token(model_type: str, tokenizer: Any) -> None:
    """By hand: hidden state at the last position of each row alone, times the head. Padding id = end id; one row has
    that id in its middle, one is a single token."""
    import torch

    from hone.config.sections.model import ModelSection
    from hone.inference.predict import class_log_probabilities
    from hone.models.load import load_model

    llama = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1}  # fmt: skip
    section = ModelSection(
        model_type=model_type,
        tokenizer_name_or_path="unused",
        config_overrides=GPT2_DRY if model_type == "gpt2" else llama,
    )
    pad = padding_id(tokenizer)
    assert pad == tokenizer.eos_token_id
    model = load_model(section, CLASSIFIER, tokenizer, seed=1, outputs=NAMES, pad_token_id=pad)
    with torch.no_grad():
        model.score.weight.mul_(50)  # so that a wrong position shows
    rows = [np.array(r) for r in ([5], [7, 8, 9, 10, 11, 12], [20, pad, 21], [30, 31, 32, 33])]
    got = class_log_probabilities(model, rows, tokens_per_batch=1000)
    for row, logs in zip(rows, got, strict=True):
        with torch.no_grad():
            hidden = model.base_model(input_ids=torch.tensor(row)[None]).last_hidden_state[0, -1]
            expected = (model.score.weight @ hidden).log_softmax(-1).numpy()
        np.testing.assert_allclose(logs, expected, atol=2e-5)
    one_by_one = class_log_probabilities(model, rows, tokens_per_batch=1)
    np.testing.assert_allclose(got, one_by_one, atol=2e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_loss_and_gradients_are_those_of_plain_transformers(
    kind: str, model_folder: Path, bert_folder: Path, write_rows: Any
) -> None:
    """The model's own loss for the same padded batch."""
    import torch

    from hone.data.tokenizer import load_tokenizer
    from hone.models.build import build_model

    folder = model_folder if kind == "gpt2" else bert_folder
    config = hone.load_config(settings(folder, write_rows, output_dir="unused"))
    data, tokenizer = hone.prepare(config), load_tokenizer(folder)
    pad = padding_id(tokenizer)
    model = build_model(config, CLASSIFIER, tokenizer, data.train.outputs)
    assert model.config.label2id == {"bad": 0, "good": 1}
    batch = collate([data.train[i] for i in range(8)], pad)
    del batch["num_tokens"]
    plain = model(**batch).loss
    plain.backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    labels = batch.pop("labels")
    ours = classification_loss(model(**batch).logits, torch.as_tensor(labels), 8)
    ours.backward()
    assert math.isclose(float(plain.detach()), float(ours.detach()), rel_tol=1e-6)
    for name, parameter in model.named_parameters():
        if name in before:
            assert float((parameter.grad - before[name]).abs().max()) <= 1e-6, name


def test_class_weights_by_hand() -> None:
    """3 of a, 1 of b: weights 4/(2*3) and 4/(2*1). Equal scores cost ln 2 a row."""
    import torch

    weights = class_weights(np.array([3, 1]))
    assert weights == [2 / 3, 2.0]
    labels = torch.tensor([0, 0, 0, 1])
    even = classification_loss(torch.zeros(4, 2), labels, 4, weights)
    assert math.isclose(float(even), math.log(2), rel_tol=1e-6), "balanced weights are 1 on average"
    logits = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    expected = (3 * 2 / 3 * right + 2.0 * wrong) / 4
    assert math.isclose(float(classification_loss(logits, labels, 4, weights)), expected, rel_tol=1e-6)
    reference = torch.nn.functional.cross_entropy(logits, labels, weight=torch.tensor(weights))
    assert math.isclose(float(reference), expected, rel_tol=1e-6), "torch divides by the weights' sum: here also 4"


def test_balanced_weights_change_what_is_trained(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    runs = {}
    for name in ("none", "balanced"):
        config = settings(model_folder, write_rows, class_weights=name, output_dir=str(tmp_path / name))
        runs[name] = hone.train(hone.load_config(config))
    first = [next(line["loss"] for line in run.metric_lines() if "loss" in line) for run in runs.values()]
    assert first[0] != first[1]
    assert runs["none"].base.metrics == runs["balanced"].base.metrics, "never weighted"


# ---- metrics ------------------------------------------------------------------------------------------------------


def test_metrics_are_scikit_learns() -> None:
    from sklearn import metrics as sk

    generator = np.random.default_rng(0)
    true = generator.integers(0, 4, 200)
    predicted = np.where(generator.random(200) < 0.6, true, generator.integers(0, 3, 200))
    answers = Answers(true, predicted, np.ones(200))
    got, classes = metrics(answers, 5, 0.95, 500), class_report(answers, ["a", "b", "c", "d", "never"], 0)
    assert math.isclose(got["accuracy"].value, sk.accuracy_score(true, predicted))
    assert math.isclose(got["balanced_accuracy"].value, sk.balanced_accuracy_score(true, predicted))
    assert got["macro_f1"].value == classes.averages["macro"].f1
    for average in ("macro", "weighted"):
        for name in ("precision", "recall", "f1"):
            reference = getattr(sk, f"{name}_score")(true, predicted, average=average, zero_division=0)
            assert math.isclose(getattr(classes.averages[average], name), reference), (average, name)
    assert classes.confusion == sk.confusion_matrix(true, predicted, labels=range(5)).tolist()
    report = sk.classification_report(true, predicted, output_dict=True, zero_division=0)
    assert math.isclose(classes.classes["b"].f1, report["1"]["f1-score"])
    assert classes.classes["never"] == ClassScores(precision=0.0, recall=0.0, f1=0.0, rows=0)
    for key in ("accuracy", "balanced_accuracy", "macro_f1"):
        low, high = got[key].bounds or (1, 0)
        assert low < got[key].value < high, key
        assert 0.05 < high - low < 0.25, key


def test_bootstrap_of_f1_and_balanced_accuracy_is_that_of_resampled_rows() -> None:
    """Against drawing rows one by one and asking scikit-learn each time."""
    from sklearn.metrics import balanced_accuracy_score, f1_score

    generator = np.random.default_rng(1)
    true = generator.integers(0, 3, 150)
    predicted = np.where(generator.random(150) < 0.7, true, generator.integers(0, 3, 150))
    got = metrics(Answers(true, predicted, np.ones(150)), 3, 0.9, 4000)
    draws = generator.integers(0, 150, (600, 150))
    f1 = [f1_score(true[d], predicted[d], average="macro") for d in draws]
    balanced = [balanced_accuracy_score(true[d], predicted[d]) for d in draws]
    np.testing.assert_allclose(got["macro_f1"].bounds, np.quantile(f1, [0.05, 0.95]), atol=0.012)
    np.testing.assert_allclose(got["balanced_accuracy"].bounds, np.quantile(balanced, [0.05, 0.95]), atol=0.012)


def test_mcnemar_by_hand() -> None:
    """Ten rows newly right, two newly wrong: two-sided binomial tail 2 * sum_{k<=2} C(12, k) / 2^12."""
    true = np.zeros(30, int)
    before, after = np.zeros(30, int), np.zeros(30, int)
    before[:10], after[10:12] = 1, 1
    base, tuned = (items_of("row", Answers(true, p, np.ones(30)).metrics()) for p in (before, after))
    found = compare_items(base, tuned)
    accuracy = found.metrics["accuracy"]
    assert (found.headline, accuracy.test, accuracy.only_b, accuracy.only_a) == ("accuracy", "McNemar", 10, 2)
    assert math.isclose(accuracy.p_value, 2 * (1 + 12 + 66) / 2**12)
    assert math.isclose(accuracy.difference.value, 8 / 30)
    assert found.verdict == "better"
    same = compare_items(base, base)
    assert (same.verdict, same.metrics["accuracy"].p_value) == ("not distinguishable", 1.0)


# ---- whole runs ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_separable_rows_are_learned(
    kind: str, tmp_path: Path, model_folder: Path, bert_folder: Path, write_rows: Any
) -> None:
    folder = model_folder if kind == "gpt2" else bert_folder
    config = settings(
        folder, write_rows, n=90, num_train_epochs=8.0, learning_rate=3e-3, output_dir=str(tmp_path / "run")
    )
    run = hone.train(hone.load_config({**config, "sample_prompts": 2}))
    tuned, change = run.tuned, run.comparison
    assert tuned and tuned.classes and change
    assert tuned.value("accuracy") == 1.0
    assert tuned.classes.confusion == [[4, 0], [0, 8]]
    assert (tuned.classes.majority_class, tuned.classes.majority_accuracy) == ("good", 8 / 12)
    assert change.metrics["accuracy"].only_a == 0
    watched = [line for line in run.metric_lines() if "eval_loss" in line]
    assert watched
    assert set(watched[-1]) == {"step", "epoch", "eval_loss", "eval_accuracy", "eval_macro_f1"}
    assert math.isclose(watched[-1]["eval_loss"], tuned.value("loss"), rel_tol=1e-5)
    _check_plain_transformers(run.folder)
    rows = hone.predict(run, ["a sunny day", "day 3 is sad indeed"])
    assert [row["label"] for row in rows] == ["good", "bad"]
    assert math.isclose(sum(rows[0]["probabilities"].values()), 1.0, rel_tol=1e-6)


def _check_plain_transformers(folder: Path) -> None:
    """AutoModelForSequenceClassification with the saved tokenizer and its padding says what hone.predict says."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [row["text"] for row in labelled_rows(7)]
    with torch.no_grad():
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        expected = model(**inputs).logits.softmax(-1)
    for row, probabilities in zip(hone.predict(folder, texts), expected, strict=True):
        assert row["label"] == model.config.id2label[int(probabilities.argmax())]
        assert math.isclose(row["probability"], float(probabilities.max()), abs_tol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_lora_and_head_only_train_the_head_and_load_again(
    method: str, kind: str, tmp_path: Path, model_folder: Path, bert_folder: Path, write_rows: Any
) -> None:
    folder = model_folder if kind == "gpt2" else bert_folder
    config = settings(folder, write_rows, method=method, learning_rate=1e-2, output_dir=str(tmp_path / "run"))
    config |= {"num_unfrozen_layers": 0} if method == "freeze" else {"lora_r": 4}
    config |= {
        "train_file": str(write_rows("three.jsonl", [*labelled_rows(36), {"text": "so so", "label": "even"}] * 2))
    }
    run = hone.train(hone.load_config(config))
    base, tuned = run.base, run.tuned
    assert base and tuned and tuned.value("loss") < base.value("loss")
    model, tokenizer = hone.load(run)  # tuned.json was measured on a model loaded from these files
    from hone.inference.predict import predict
    from hone.models.classifier_head import class_names

    assert class_names(model) == ["bad", "even", "good"]
    texts = [row["text"] for row in labelled_rows(48)[36:]]
    logs = [math.log(r["probabilities"][row["label"]]) for r, row in zip(
        predict(model, tokenizer, texts), labelled_rows(48)[36:], strict=True)]  # fmt: skip
    assert math.isclose(-sum(logs) / 12, tuned.value("loss"), rel_tol=1e-5)
    if method == "freeze":
        from safetensors.torch import load_file

        start, end = (load_file(f / "model.safetensors") for f in (folder, run.folder))
        block = "transformer.h.0.attn.c_attn.weight" if kind == "gpt2" else "bert.encoder.layer.0.output.dense.weight"
        assert bool((start[block] == end[block]).all())


def test_a_head_of_the_same_classes_is_kept_and_any_other_is_new(
    tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    import torch

    from hone.config.sections.model import ModelSection
    from hone.data.tokenizer import load_tokenizer
    from hone.models.load import load_model

    tokenizer = load_tokenizer(model_folder)
    section = ModelSection(model_name_or_path=str(model_folder))

    def load(labels: list[str], section: ModelSection, seed: int = 0) -> Any:
        return load_model(section, CLASSIFIER, tokenizer, seed=seed, outputs=labels, pad_token_id=0)

    first = load(["a", "b", "c"], section)
    first.save_pretrained(tmp_path / "abc")
    saved = ModelSection(model_name_or_path=str(tmp_path / "abc"))
    assert torch.equal(load(["a", "b", "c"], saved, seed=9).score.weight, first.score.weight)
    permuted = load(["c", "a", "b"], saved, seed=9)
    assert torch.equal(permuted.score.weight, first.score.weight[[2, 0, 1]])
    assert permuted.config.id2label == {0: "c", 1: "a", 2: "b"}
    for other in (["a", "b", "x"], ["a", "b"]):
        new = load(other, saved, seed=9)
        assert new.score.weight.shape[0] == len(other)
        assert torch.equal(new.score.weight, load(other, saved, seed=9).score.weight), "a function of the seed"
        assert not torch.equal(new.score.weight[:2], first.score.weight[:2])
        assert 0.005 < float(new.score.weight.std()) < 0.05, "the architecture's own initial spread"
    assert torch.equal(new.transformer.wte.weight, first.transformer.wte.weight)


def test_eval_of_a_run_repeats_its_numbers(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = settings(model_folder, write_rows, output_dir=str(tmp_path / "run"))
    run = hone.train(hone.load_config(config))
    again = hone.evaluate(run, hone.load_config(run.folder / "config.resolved.yaml"))
    tuned = run.tuned
    assert tuned and again.classes and tuned.classes
    assert math.isclose(again.value("loss"), tuned.value("loss"), rel_tol=1e-6)
    assert again.classes.confusion == tuned.classes.confusion
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card
    assert "balanced accuracy" in card
    assert json.loads((run.folder / "labels.json").read_text())["labels"] == NAMES
