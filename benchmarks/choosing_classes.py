"""What docs/choosing.md says of classifiers, measured: how many rows a class, uneven classes, and the threshold.

Rows are drawn from two classes of texts; 1,000 others are tested, as uneven as the training rows. Beside each
classifier stands logistic regression on characters (`classification_baseline.py`), trained on the same rows. The
figures are left in OUT/choosing-classes.json.

    python benchmarks/choosing_classes.py --data yes=yes.txt.gz no=no.txt.gz --model MODEL --out out
"""

import argparse
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from classification_baseline import COMMON, read

SEEDS = (0, 1, 2)
EVEN = {10: 20, 50: 10, 200: 5, 1000: 3}  # rows a class: epochs
RARE, COMMON_ROWS, UNEVEN_EPOCHS = 50, 950, 5  # 1 to 19
N_TESTED = 1000
THRESHOLDS = (0.5, 0.3, 0.1, 0.03)


def main() -> None:
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    logging.getLogger("hone").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in SEEDS:
        classes = shuffled(read(options.data), seed)
        for n, epochs in EVEN.items():
            rows.append({"kind": "even", "a_class": n, "seed": seed, **even(classes, n, epochs, seed, options)})
        for weights in ("none", "balanced"):
            about = {"kind": "uneven", "weights": weights, "seed": seed}
            rows += [{**about, **row} for row in uneven(classes, weights, seed, options)]
        (options.out / "choosing-classes.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="rows a class, uneven classes, thresholds")
    parser.add_argument("--data", nargs=2, required=True, metavar="CLASS=FILE", help="the rarer one first")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def shuffled(rows: list[tuple[str, str]], seed: int) -> list[list[str]]:
    """The texts of the two classes, each in the order of this seed."""
    names = list(dict.fromkeys(name for _, name in rows))
    classes = [[text for text, name in rows if name == one] for one in names]
    for texts in classes:
        random.Random(seed).shuffle(texts)
    return classes


def even(classes: list[list[str]], n: int, epochs: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    train = labelled([texts[:n] for texts in classes])
    test = labelled([texts[-N_TESTED // 2 :] for texts in classes])
    p = probabilities(train, test, {"num_train_epochs": epochs, "seed": seed}, options)
    truth = np.array([label == "rare" for _, label in test])
    right, baseline = (p >= 0.5) == truth, characters(train, test) == truth
    return {"epochs": epochs, "accuracy": float(right.mean()), "baseline": float(baseline.mean())}


def uneven(classes: list[list[str]], weights: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Precision and recall of the rare class at each threshold."""
    share = RARE / (RARE + COMMON_ROWS)
    n_rare = round(N_TESTED * share)
    train = labelled([classes[0][:RARE], classes[1][:COMMON_ROWS]])
    test = labelled([classes[0][-n_rare:], classes[1][-(N_TESTED - n_rare) :]])
    keys = {"num_train_epochs": UNEVEN_EPOCHS, "seed": seed, "class_weights": weights}
    p = probabilities(train, test, keys, options)
    truth = np.array([label == "rare" for _, label in test])
    found = []
    for threshold in THRESHOLDS:
        said = p >= threshold
        found.append(
            {
                "threshold": threshold,
                "accuracy": float((said == truth).mean()),
                "recall": float((said & truth).sum() / truth.sum()),
                "precision": float((said & truth).sum() / said.sum()) if said.any() else None,
            }
        )
    return found


def labelled(classes: list[list[str]]) -> list[tuple[str, str]]:
    return [(text, name) for texts, name in zip(classes, ("rare", "common"), strict=True) for text in texts]


def probabilities(
    train: list[tuple[str, str]], test: list[tuple[str, str]], keys: dict[str, Any], options: argparse.Namespace
) -> np.ndarray:
    """(n,) how likely each tested text is of the rare class, by a model trained on the rows."""
    import hone

    for name, rows in (("train", train), ("test", test[:: len(test) // 20])):
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (options.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    files = {"train_file": str(options.out / "train.jsonl"), "validation_file": str(options.out / "test.jsonl")}
    out = {"output_dir": str(options.out / "run"), "overwrite": True, "eval_base": False, "overlap": "off"}
    given = {"max_length": 64, "per_device_train_batch_size": 16, "learning_rate": 1e-3}
    run = hone.train(hone.load_config({**COMMON, **files, **out, **given, "model_name_or_path": options.model, **keys}))
    answers = hone.predict(run, [text for text, _ in test])
    return np.array([answer["probabilities"]["rare"] for answer in answers])


def characters(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> np.ndarray:
    """(n,) whether logistic regression on up to five characters says rare."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True, lowercase=False)
    model = make_pipeline(features, LogisticRegression(max_iter=1000))
    model.fit([text for text, _ in train], [label for _, label in train])
    return np.asarray(model.predict([text for text, _ in test]) == "rare")


if __name__ == "__main__":
    main()
