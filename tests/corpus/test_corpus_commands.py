"""`hone corpus`: what it prints, what it plans, and a cluster that is played by two scripts."""

import json
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_corpus import hashes, make, prose, write_rows
from typer.testing import CliRunner

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

from hone.cli import app
from hone.corpus import plan as planning
from hone.corpus.inputs import Part
from hone.corpus.load import load
from hone.corpus.run import run
from hone.corpus.schema import keys_text, leaves, sections
from hone.errors import HoneError

pytest_plugins = ["corpus_fixtures"]
Config = Callable[..., Path]
PAGE = Path(__file__).parents[2] / "docs" / "files" / "corpus.md"


@pytest.fixture
def rows(tmp_path: Path, rng: random.Random) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [*(prose(rng) for _ in range(200)), "short"])


def hone(*words: str | Path) -> str:
    found = CliRunner().invoke(app, ["corpus", *map(str, words)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_plan_and_run_print_what_they_found(rows: Path, corpus_config: Config, tmp_path: Path) -> None:
    config = corpus_config(rows)
    planned = hone("plan", config)
    assert "to read: 1 file, 0 MB, in 1 task" in planned and "dropped: 0.5% shorter than 100 characters" in planned
    assert "documents: 201 read, 200 kept" in planned and ": enough" in planned
    figures = json.loads(hone("plan", config, "--json"))
    assert figures["n_documents"] == 201 and figures["disk_bytes"] > 0 and set(figures["seconds"]) >= {"documents"}
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()
    text = hone("run", config)
    assert "dropped 1 × shorter than 100 characters: rows.jsonl:201" in text and "hone verify" in text
    again = json.loads(hone("run", config, "--json"))
    assert again["kind"] == "corpus" and again["n_read"] == 201


def test_a_sample_of_large_files_is_scaled(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    import gzip

    texts = [prose(rng, 400) for _ in range(2400)]
    plain = write_rows(tmp_path / "rows.jsonl", texts)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes(), 1))
    for name in ("rows.jsonl", "packed.jsonl.gz"):
        planned = planning.plan(load(str(corpus_config(tmp_path / name, near=False)), ["task_mb=64"]))
        assert planned.sampled_bytes < planned.n_bytes
        assert 0.7 * 2400 < planned.n_documents < 1.4 * 2400, name


def test_the_sample_is_of_all_files_not_of_the_first() -> None:
    about = {"name": "x", "how": "lines", "begin": 0, "end": 2_000_000, "n_bytes": 2_000_000, "mtime_ns": 0}
    parts = [Part(path=str(number), **about) for number in range(1000)]
    taken: list[int] = []

    def piece(part: Part, folder: Path) -> tuple[Part, int]:
        taken.append(int(part.path))
        return part, planning.PIECE_BYTES

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_piece", piece)
        _, sampled = planning.sample_of(parts, Path())
    assert sampled == planning.SAMPLE_BYTES and taken == list(range(0, 1000, 125))


def test_a_disk_too_small_is_named_before_the_start(
    rows: Path, corpus_config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hone.corpus.run.SAMPLED_FROM", 0)
    monkeypatch.setattr(planning, "free_bytes", lambda folder: 1000)
    with pytest.raises(HoneError, match=r"the disk is too small: about .* are needed, .* free"):
        make(corpus_config(rows))
    assert not (tmp_path / "out.work").exists()


def test_the_page_lists_the_keys_and_each_is_unique() -> None:
    assert keys_text() in PAGE.read_text(encoding="utf-8"), "run python -m hone.corpus.schema, and put it into the page"
    assert len(leaves()) == sum(len(section.model_fields) for section in sections().values())


def test_the_example_of_the_page_is_a_configuration(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "corpus.yaml").write_text(text)
    assert load(str(tmp_path / "corpus.yaml")).config.output.workers == 2


def test_without_datatrove_the_line_to_type_is_said(
    rows: Path, corpus_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.corpus.blocks.find_spec", lambda name: None)
    found = CliRunner().invoke(app, ["corpus", "run", str(corpus_config(rows))])
    assert found.exit_code == 1 and "pip install 'hone-lm[corpus]'" in found.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell plays the cluster")
def test_jobs_of_a_cluster_do_the_same(
    rows: Path, corpus_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = hashes(make(corpus_config(rows)).folder)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, said in (("sbatch", "Submitted batch job 7"), ("scontrol", "localhost")):
        (programs / name).write_text(f"#!/bin/sh\necho {said}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    config = corpus_config(rows)
    settings = ["executor=slurm", "slurm_partition=small", f"output_dir={tmp_path / 'two'}"]
    said: list[str] = []
    assert run(load(str(config), settings), said.append) is None and "give the same command again" in said[-1]
    jobs = tmp_path / "two.work" / "slurm"
    script = (jobs / "documents" / "launch_script.slurm").read_text()
    assert "#SBATCH --partition=small" in script and "launch_pickled_pipeline" in script
    import dill

    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    for stage in ("documents", "copies", "signatures", "buckets", "clusters", "tokens", "shards"):
        for rank in range(14 if stage == "buckets" else 1):
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(rank))
            dill.loads((jobs / stage / "executor.pik").read_bytes()).run()
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert hashes(make(config, *settings).folder) == wanted


def test_tasks_of_ray_do_the_same(
    rows: Path, corpus_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is played: its tasks are threads, and its errors hold the task's own."""
    threads = ThreadPoolExecutor(2)

    class RayTaskError(HoneError):
        def __init__(self, cause: HoneError) -> None:
            super().__init__("a traceback")
            self.cause = cause

    def remote(call: Callable[..., object]) -> SimpleNamespace:
        def task(*arguments: object) -> object:
            try:
                return call(*arguments)
            except HoneError as error:
                raise RayTaskError(error) from error

        def begin(*arguments: object) -> SimpleNamespace:
            return SimpleNamespace(future=lambda: threads.submit(task, *arguments))

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=begin))

    ray = SimpleNamespace(init=lambda **_: None, remote=remote, __spec__=ModuleSpec("ray", None))
    monkeypatch.setitem(sys.modules, "ray", ray)
    wanted = hashes(make(corpus_config(rows)).folder)
    assert hashes(make(corpus_config(rows), "executor=ray", f"output_dir={tmp_path / 'two'}").folder) == wanted
    bad = write_rows(tmp_path / "bad.jsonl", [3])
    with pytest.raises(HoneError, match=r"bad\.jsonl:1: column 'text' holds no text, but 3"):
        make(corpus_config(bad), "executor=ray", f"output_dir={tmp_path / 'three'}")


def test_without_a_cluster_that_is_said(rows: Path, corpus_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HoneError, match="no Slurm here"):
        run(load(str(corpus_config(rows, executor="slurm", slurm_partition="small"))), print)
    monkeypatch.setattr("hone.corpus.workers.find_spec", lambda name: None)
    with pytest.raises(HoneError, match=r"Ray is not installed.*\n.*hone-lm\[ray\]"):
        make(corpus_config(rows), "executor=ray")
