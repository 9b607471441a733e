"""What a corpus takes of memory: buffers of a fixed size, however much a task reads, and no torch in the workers."""

import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from small_corpus import prose, write_rows

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

from hone.corpus.load import load
from hone.corpus.plan import planned_work
from hone.corpus.stages import run_task, stages_of
from hone.corpus.work import Work, begin_work

pytest_plugins = ["corpus_fixtures"]
Config = Callable[..., Path]
BUFFER = 1 << 16
PROGRAM = """
import sys
from pathlib import Path
from hone.corpus.stages import run_task
for stage in ("documents", "copies", "tokens", "shards"):
    run_task(Path(sys.argv[1]), stage, 0)
print(*sorted({"torch", "pandas", "scipy"} & set(sys.modules)))
"""


def work_of(config: Path, folder: Path) -> Work:
    return begin_work(folder, planned_work(load(str(config))))


def most_memory(work: Work) -> dict[str, int]:
    """Stage -> the most bytes that a task of it held beyond what was there."""
    found: dict[str, int] = {}
    for stage in stages_of(work):
        for rank in range(stage.n_tasks):
            tracemalloc.start()
            run_task(work.folder, stage.name, rank)
            found[stage.name] = max(found.get(stage.name, 0), tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    return found


def test_a_task_of_ten_times_the_text_takes_no_more_memory(
    tmp_path: Path, rng: random.Random, corpus_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.corpus.documents.GROUP_BYTES", BUFFER)
    monkeypatch.setattr("hone.data.encode.CHARACTERS_PER_BATCH", BUFFER)
    monkeypatch.setattr("hone.corpus.shards.COPIED_AT_ONCE", BUFFER // 4)
    monkeypatch.setattr("hone.data.store_writer.WAITING_TOKENS", BUFFER // 4)
    found, n_bytes = [], []
    items = write_rows(tmp_path / "items.jsonl", [prose(rng, 60)])
    for n in (5, 20, 200):  # the first warms up what stays: modules, compiled patterns, the words of the tokenizer
        rows = write_rows(tmp_path / f"{n}.jsonl", [prose(rng, 1500) for _ in range(n)])
        n_bytes.append(rows.stat().st_size)
        config = corpus_config(rows, evaluation_files=str(items), shard_tokens=10**7)
        work = work_of(config, tmp_path / f"work-{n}")
        assert work.n_tasks == 1
        found.append(most_memory(work))
    more = n_bytes[2] - n_bytes[1]
    assert more > 20 * BUFFER
    for stage in ("documents", "signatures", "grams", "tokens"):
        grown = found[2][stage] - found[1][stage]
        assert grown < more / 8, f"{stage}: {grown:,} bytes more for {more:,} bytes more of text"


def test_a_worker_imports_neither_torch_nor_pandas(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [prose(rng) for _ in range(30)])
    work = work_of(corpus_config(rows, near=False), tmp_path / "work")
    words = [sys.executable, "-c", PROGRAM, str(work.folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
