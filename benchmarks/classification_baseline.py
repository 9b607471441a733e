"""Classification measured: hone's classifiers beside TF-IDF and logistic regression, on the same rows.

Each --data is one class: a name and a file of one text a line (.gz or not). Equal texts are kept once, the rest is
shuffled and cut into training and test rows. Nothing is tuned on the test rows: the settings are those below. Intervals
of accuracy are Wilson's, and every classifier is compared with the better baseline row by row (McNemar's exact test).

    python benchmarks/classification_baseline.py --data yes=yes.txt.gz no=no.txt.gz --model path/to/model --out out
"""

import argparse
import gzip
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone.results import Items, Level
from hone.show import estimate

SCRATCH = {  # an encoder of some 0.9 million weights beside its embeddings
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
COMMON = {
    "task": "classification",
    "warmup_steps": 0.06,
    "logging_steps": 200,
    "eval_strategy": "no",
    "save_strategy": "no",
    "sample_prompts": 0,
    "eval_tokens_per_batch": 8192,
}


@dataclass(frozen=True)
class Row:
    """A classifier's row of the table. right: (n,) bool, in the order of the test rows; weights: how many trained."""

    name: str
    right: np.ndarray
    seconds: float
    weights: int
    metrics: dict[str, Level]


def main() -> None:
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    options.out.mkdir(parents=True, exist_ok=True)
    train, test = split(read(options.data), options.test_share, options.seed)
    for name, rows in (("train", train), ("test", test)):
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (options.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(train):,} training rows, {len(test):,} test rows\n")
    results = [*baselines(train, test, options.balanced), *runs(options, [text for text, _ in train])]
    print("| classifier | trained weights | time | accuracy | macro F1 | against the better baseline |")
    print("| --- | --- | --- | --- | --- | --- |")
    best = max(results[:2], key=lambda row: row.metrics["accuracy"].value)
    for result in results:
        print(line(result, best))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hone's classifiers against TF-IDF and logistic regression")
    parser.add_argument("--data", nargs="+", required=True, metavar="CLASS=FILE", help="one text a line; .gz or not")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="a model to fine-tune; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and runs")
    parser.add_argument("--epochs", type=float, default=3.0, help="passes over the training rows (default 3)")
    parser.add_argument("--test-share", type=float, default=0.2, help="share of the rows that is tested (default 0.2)")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a text that hone reads (default 64)")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step (default 32)")
    parser.add_argument(
        "--balanced", action="store_true", help="rare classes weigh more in training, in every classifier"
    )
    parser.add_argument("--vocabulary", type=int, default=4000, help="tokens of the from-scratch model (default 4,000)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read(given: list[str]) -> list[tuple[str, str]]:
    """(text, class) of every line that is not empty; of equal texts the first."""
    found: dict[str, str] = {}
    for name, _, file in (item.partition("=") for item in given):
        with (gzip.open if file.endswith(".gz") else open)(file, "rt", encoding="utf-8") as stream:
            for text in filter(None, map(str.strip, stream)):
                found.setdefault(text, name)
    return list(found.items())


def split(rows: list[tuple[str, str]], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    random.Random(seed).shuffle(rows)
    n_test = round(len(rows) * share)
    return rows[n_test:], rows[:n_test]


def baselines(train: list[tuple[str, str]], test: list[tuple[str, str]], balanced: bool) -> list[Row]:
    """TF-IDF and logistic regression with scikit-learn's own settings: of words and pairs of them in lower case, and of
    up to five characters as they are written, which see capitals and endings as a subword model does.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True, lowercase=False)
    truth = np.array([label for _, label in test])
    results = []
    for name, features in (("words", words), ("characters", characters)):
        began = time.perf_counter()
        model = make_pipeline(
            features, LogisticRegression(max_iter=1000, class_weight="balanced" if balanced else None)
        )
        model.fit([text for text, _ in train], [label for _, label in train])
        seconds = time.perf_counter() - began
        weights = int(model[-1].coef_.size + model[-1].intercept_.size)
        results.append(summary(f"TF-IDF of {name}", truth, model.predict([text for text, _ in test]), seconds, weights))
    return results


def runs(options: argparse.Namespace, texts: list[str]) -> list[Row]:
    """A classifier from scratch and each model given, trained by hone on the rows that were written."""
    from hone.data.tokenizer import save_tokenizer, train_bpe

    save_tokenizer(train_bpe(texts, vocab_size=options.vocabulary), options.out / "tokenizer")
    shape = {**SCRATCH, "max_position_embeddings": options.max_length}
    scratch = {"model_type": "bert", "config_overrides": shape}
    plans = [("from scratch", {**scratch, "tokenizer_name_or_path": str(options.out / "tokenizer")}, 5e-4)]
    plans += [(f"{Path(name).name}, full", {"model_name_or_path": name}, 1e-3) for name in options.model]
    plans += [
        (
            f"{Path(name).name}, head only",
            {"model_name_or_path": name, "method": "freeze", "num_unfrozen_layers": 0},
            1e-2,
        )
        for name in options.model
    ]
    return [run(name, {**keys, "learning_rate": rate}, options) for name, keys, rate in plans]


def run(name: str, keys: dict[str, Any], options: argparse.Namespace) -> Row:
    import hone
    from hone.data.tokenizer import load_tokenizer
    from hone.models.build import build_model
    from hone.models.freeze import count_trainable
    from hone.models.kinds import CLASSIFIER

    files = {
        kind: str(options.out / f"{side}.jsonl")
        for kind, side in (("train_file", "train"), ("validation_file", "test"))
    }
    out = {"output_dir": str(options.out / name.replace(", ", "-").replace(" ", "-")), "overwrite": True}
    given = {
        "num_train_epochs": options.epochs,
        "max_length": options.max_length,
        "per_device_train_batch_size": options.batch,
        "class_weights": "balanced" if options.balanced else "none",
        "seed": options.seed,
    }
    config = hone.load_config({**COMMON, **keys, **files, **out, **given})
    began = time.perf_counter()
    done = hone.train(config)
    seconds = time.perf_counter() - began
    items, tuned = done.read(Items, "tuned.items"), done.tuned
    assert items and tuned and tuned.classes
    model = build_model(config, CLASSIFIER, load_tokenizer(done.folder), list(tuned.classes.classes))
    weights = count_trainable(model).n_trainable
    right = np.array(items.metrics["accuracy"].numerator, bool)
    return Row(f"hone: {name}", right, seconds, weights, tuned.metrics)


def summary(name: str, truth: np.ndarray, answers: np.ndarray, seconds: float, weights: int) -> Row:
    from hone.tasks.classification import Answers, metrics

    names = sorted(set(truth.tolist()) | set(answers.tolist()))
    true, predicted = (np.searchsorted(names, values) for values in (truth, answers))
    found = metrics(Answers(true, predicted, np.zeros(len(true))), len(names), 0.95, 2000)
    return Row(name, truth == answers, seconds, weights, found)


def line(row: Row, base: Row) -> str:
    from hone.statistics.paired import Metric, paired
    from hone.tasks.classification import ACCURACY

    found = paired(Metric(ACCURACY, base.right), Metric(ACCURACY, row.right))
    cells = [row.name, f"{row.weights:,}", f"{row.seconds:.0f} s"]
    cells += [estimate(row.metrics[key], ".4f") for key in ("accuracy", "macro_f1")]
    newly = f"{found.only_b} newly right, {found.only_a} newly wrong, p = {found.p_value:.2g}"
    cells.append("-" if row is base else newly)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
