"""A corpus from rows to sealed shards: what is kept, what is dropped and why, and on what its bytes depend."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_corpus import hashes, make, near_copy, prose, write_rows

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

from hone.data.shards import open_corpus
from hone.errors import HoneError
from hone.verify import verify

pytest_plugins = ["corpus_fixtures"]
Config = Callable[..., Path]


@pytest.fixture
def rows(tmp_path: Path, rng: random.Random) -> Path:
    """200 different texts in one file of about 130 kB."""
    return write_rows(tmp_path / "rows.jsonl", [prose(rng) for _ in range(200)])


def test_shards_hold_the_documents_in_order_and_each_ends(rows: Path, corpus_config: Config, tokenizer: Any) -> None:
    ran = make(corpus_config(rows))
    train, val, manifest = open_corpus(ran.folder)
    texts = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    found = {"train": [], "val": []}
    for name, split in (("train", train), ("val", val)):
        for begin, end in zip(split.starts[:-1], split.starts[1:]):
            ids = split.tokens[begin:end].tolist()
            assert ids[-1] == tokenizer.eos_token_id
            found[name].append(tokenizer.decode(ids[:-1]))
    assert 5 < len(found["val"]) < 40, "about a tenth"
    assert sorted(found["train"] + found["val"]) == sorted(texts)
    for name in found:
        places = [texts.index(text) for text in found[name]]
        assert places == sorted(places)
    sizes = [shard.tokens for shard in manifest.shards if shard.split == "train"]
    assert len(sizes) > 3
    cuts = np.cumsum([0, *sizes])[1:-1]
    assert all(0 <= cut % 20_000 < 1000 for cut in cuts), "a shard ends with the document that reaches its share"
    assert manifest.n_read == 200 and manifest.dropped == []
    assert not (ran.folder.parent / "out.work").exists()


@pytest.mark.slow
def test_workers_tasks_and_a_second_run_change_no_byte(rows: Path, corpus_config: Config, tmp_path: Path) -> None:
    first = make(corpus_config(rows), "task_mb=1")
    config = corpus_config(rows)
    second = make(config, f"output_dir={tmp_path / 'two'}", "workers=2")
    assert hashes(first.folder) == hashes(second.folder)
    again = make(config, f"output_dir={tmp_path / 'two'}")
    assert again.there and again.manifest == second.manifest


def test_copies_near_copies_leaks_and_secrets(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    texts = [prose(rng, 300) for _ in range(20)]
    item = prose(rng, 60)
    bad = [texts[3], near_copy(rng, texts[5], 3), f"{prose(rng)} {item} {prose(rng)}", "short"]
    secret = prose(rng) + " ask jo@site.org with key AKIAABCDEFGHIJKLMNOP"
    rows = write_rows(tmp_path / "rows.jsonl", [*texts, *bad, secret])
    items = write_rows(tmp_path / "eval.jsonl", [item])
    ran = make(corpus_config(rows, evaluation_files=str(items), validation_percentage=0))
    assert {one.reason: (one.count, one.first) for one in ran.manifest.dropped} == {
        "shorter than 100 characters": (1, ["rows.jsonl:24"]),
        "copy of an earlier document": (1, ["rows.jsonl:21"]),
        "nearly an earlier document": (1, ["rows.jsonl:22"]),
        "holds an evaluation item": (1, ["rows.jsonl:23"]),
    }
    assert ran.manifest.n_masked == {"e-mail addresses": 1, "keys and tokens": 1}
    assert ran.manifest.total("train")[0] == 21 and ran.manifest.total("val") == (0, 0)


def test_the_held_out_documents_are_those_of_their_text_wherever_it_stands(
    tmp_path: Path, rng: random.Random, corpus_config: Config, tokenizer: Any
) -> None:
    texts = [prose(rng) for _ in range(60)]
    held = []
    for name in ("a", "b"):
        rows = write_rows(tmp_path / f"{name}.jsonl", texts)
        _, val, _ = open_corpus(make(corpus_config(rows), f"output_dir={tmp_path / name}").folder)
        borders = zip(val.starts[:-1], val.starts[1:])
        held.append({tokenizer.decode(val.tokens[begin : end - 1].tolist()) for begin, end in borders})
        rng.shuffle(texts)
    assert held[0] == held[1] and held[0]


def test_licences_scripts_and_columns(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    lines = [
        {"body": prose(rng), "licence": "MIT"},
        {"body": prose(rng), "licence": "GPL-3.0"},
        {"body": prose(rng), "licence": None},
        {"body": "Широкая река течёт под мостом. " * 10, "licence": "mit"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"text_column": "body", "licence_column": "licence", "licences": ["mit"], "scripts": ["Latin"]}
    ran = make(corpus_config(path, **settings, validation_percentage=0))
    assert {one.reason: one.first for one in ran.manifest.dropped} == {
        "another licence": ["rows.jsonl:2"],
        "no licence is named": ["rows.jsonl:3"],
        "of another script": ["rows.jsonl:4"],
    }


def test_parquet_in_groups_and_files_of_code(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [prose(rng, 400) for _ in range(1500)]
    pq.write_table(
        pa.table({"text": [*texts, "short"]}), tmp_path / "rows.parquet", row_group_size=300, compression=None
    )
    ran = make(corpus_config(tmp_path / "rows.parquet", near=False), "task_mb=1")
    assert ran.manifest.total("train")[0] + ran.manifest.total("val")[0] == 1500
    assert [one.first for one in ran.manifest.dropped] == [["rows.parquet:1501"]]
    assert len(ran.manifest.inputs) > 1
    folder = tmp_path / "src" / "deep"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"m{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 10)
    (folder / "made.py").write_text("# This file is auto-generated.\n" + "x = 1\n" * 50)
    code = make(corpus_config(tmp_path / "src", near=False), f"output_dir={tmp_path / 'code'}")
    assert [(one.reason, one.first) for one in code.manifest.dropped] == [
        ("says that it is generated", ["src/deep/made.py"])
    ]


def test_blocks_of_datatrove(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    texts = [prose(rng), prose(rng) + " from 10.0.0.1 and 22.33.44.55", prose(rng) + " forbidden"]
    rows = write_rows(tmp_path / "rows.jsonl", texts)
    blocks = [{"RegexFilter": {"regex_exp": "forbidden"}}]
    ran = make(corpus_config(rows, blocks=blocks))
    assert [(one.reason, one.first) for one in ran.manifest.dropped] == [("RegexFilter", ["rows.jsonl:3"])]
    with pytest.raises(HoneError, match=r"no filter or formatter 'RegexFiltr'.*\n.*RegexFilter"):
        make(corpus_config(rows, blocks=[{"RegexFiltr": {}}], output_dir=str(tmp_path / "other")))


def test_verify_names_a_changed_byte_and_a_missing_shard(rows: Path, corpus_config: Config) -> None:
    folder = make(corpus_config(rows)).folder
    assert verify(str(folder)).problems == [] and verify(str(folder)).kind == "corpus"
    shard = folder / "train-00001.bin"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.unlink()
    shard.write_bytes(content)
    assert verify(str(folder)).problems == [f"{shard}: the content is not what was written"]
    with pytest.raises(HoneError, match=r"train-00001.bin: the corpus is damaged.*\n.*hone verify"):
        open_corpus(folder)
    shard.unlink()
    with pytest.raises(HoneError, match=r"train-00001\.bin: the corpus is damaged: missing"):
        open_corpus(folder)


def test_another_corpus_in_the_folder_is_not_overwritten(rows: Path, corpus_config: Config) -> None:
    make(corpus_config(rows))
    with pytest.raises(HoneError, match="other settings or other inputs"):
        make(corpus_config(rows), "shard_tokens=500")
    text = rows.read_text()
    rows.write_text(text.replace("stone", "stome"))
    with pytest.raises(HoneError, match=r"an input has changed since: rows\.jsonl"):
        make(corpus_config(rows))


def test_digests_decide_alone_who_is_held_out() -> None:
    from hone.corpus.shards import held_out

    digests = np.random.default_rng(0).integers(0, 2**63, (20_000, 2), dtype=np.uint64) * np.uint64(2)
    assert abs(held_out(digests, 2.0, 0).mean() - 0.02) < 0.004
    assert not held_out(digests, 0, 0).any()
    assert (held_out(digests, 2.0, 0) != held_out(digests, 2.0, 1)).any()
