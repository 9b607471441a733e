"""A model trained from the shards of a corpus is the model trained from one store of the same documents."""

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_corpus import make, prose, write_rows

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

import hone
from hone.data.shards import open_corpus
from hone.data.token_files import TokenFiles
from hone.errors import HoneError
from hone.runs import Run

pytest_plugins = ["corpus_fixtures"]
Config = Callable[..., Path]


def test_files_are_one_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.data.token_files.OPEN_AT_ONCE", 2)
    whole = np.random.default_rng(0).integers(0, 5000, 100).astype("<u2")
    sizes = [30, 1, 0, 69]
    paths = [tmp_path / f"{i}.bin" for i in range(4)]
    for path, part in zip(paths, np.split(whole, np.cumsum(sizes)[:-1])):
        part.tofile(path)
    files = TokenFiles([paths[i] for i in (0, 1, 3)], [30, 1, 69], np.dtype("<u2"), int(whole.max()))
    for found in (files, pickle.loads(pickle.dumps(files))):
        assert len(found) == 100 and found.max() == whole.max()
        for a in range(0, 101, 7):
            for b in range(0, 120, 11):
                assert np.array_equal(found[a:b], whole[a:b]) and found[a:b].dtype == whole.dtype


@pytest.fixture
def corpus(tmp_path: Path, rng: random.Random, corpus_config: Config, model_folder: Path) -> Path:
    rows = write_rows(tmp_path / "rows.jsonl", [prose(rng, 60) for _ in range(60)])
    config = corpus_config(rows, tokenizer_name_or_path=str(model_folder), shard_tokens=1000)
    folder = make(config).folder
    assert len(list(folder.glob("train-*.bin"))) > 3
    return folder


@pytest.mark.parametrize("batching", ["flat", "windows"])
def test_losses_are_those_of_one_store(
    batching: str, corpus: Path, tmp_path: Path, model_folder: Path, tokenizer: object
) -> None:
    train, val, _ = open_corpus(corpus)
    for name, split in (("train", train), ("val", val)):
        borders = zip(split.starts[:-1], split.starts[1:])
        texts = [hone_tokenizer(model_folder).decode(split.tokens[a : b - 1].tolist()) for a, b in borders]
        write_rows(tmp_path / f"{name}.jsonl", texts)
    settings = {
        "model_name_or_path": str(model_folder),
        "max_length": 64,
        "batching": batching,
        "max_steps": 4,
        "logging_steps": 1,
        "overlap": "off",
        "max_new_tokens": 4,
    }
    store = {"train_file": str(tmp_path / "train.jsonl"), "validation_file": str(tmp_path / "val.jsonl")}
    found = []
    for name, data in (("shards", {"train_file": str(corpus)}), ("store", store)):
        run = hone.train({**settings, **data, "output_dir": str(tmp_path / name)})
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        found.append(([line["loss"] for line in lines if "loss" in line], weights(run)))
    assert found[0][0] == found[1][0] and len(found[0][0]) == 4
    assert found[0][1] == found[1][1]


def hone_tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    from hone.data.tokenizer import load_tokenizer

    return load_tokenizer(folder)


def weights(run: Run) -> str:
    import hashlib

    return hashlib.sha256((run.folder / "model.safetensors").read_bytes()).hexdigest()


def test_check_prepare_and_refusals(corpus: Path, tmp_path: Path, model_folder: Path, rng: random.Random) -> None:
    config = {"model_name_or_path": str(model_folder), "max_length": 64}
    prepared = hone.prepare({**config, "train_file": str(corpus)})
    assert prepared.store.train.n_documents == prepared.store.meta["splits"]["train"]["documents"] > 40
    other = hone.prepare({**config, "train_file": str(corpus), "validation_file": str(corpus)})
    assert other.store.val.n_documents == prepared.store.val.n_documents
    rows = write_rows(tmp_path / "more.jsonl", [prose(rng)])
    with pytest.raises(HoneError, match="a corpus cannot be mixed with other files"):
        hone.prepare({**config, "train_file": [str(corpus), str(rows)]})
    with pytest.raises(HoneError, match="a corpus has no rows for task: classification"):
        hone.prepare({**config, "train_file": str(corpus), "task": "classification"})
    with pytest.raises(HoneError, match="made with another tokenizer"):
        hone.prepare({"model_name_or_path": "hone-base", "max_length": 64, "train_file": str(corpus)})


def test_a_damaged_shard_is_named_before_training(corpus: Path, tmp_path: Path, model_folder: Path) -> None:
    shard = corpus / "train-00002.docs.npy"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1] + b"\1")
    config = {"model_name_or_path": str(model_folder), "train_file": str(corpus), "output_dir": str(tmp_path / "run")}
    with pytest.raises(HoneError, match=r"train-00002.docs.npy: the corpus is damaged"):
        hone.train({**config, "max_length": 64, "max_steps": 1})
