"""What goes wrong while a corpus is made: one message, nothing lost, and the same command goes on to the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_corpus import hashes, make, prose, write_rows

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

from hone.corpus import stages, work
from hone.corpus.load import load
from hone.errors import HoneError, Interrupted
from hone.files import read_sealed

pytest_plugins = ["corpus_fixtures"]
Config = Callable[..., Path]
PROGRAM = "import sys; from hone.corpus.load import load; from hone.corpus.run import run\n"
PROGRAM += "if __name__ == '__main__': run(load(sys.argv[1], sys.argv[2:]), print)"


@pytest.fixture
def rows(tmp_path: Path, rng: random.Random) -> Path:
    """Three files, which are three tasks."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in "abc":
        write_rows(folder / f"{name}.jsonl", [prose(rng, 1500) for _ in range(70)])
    return folder


@pytest.mark.slow
def test_interrupted_after_any_task_it_goes_on_to_the_same_bytes(
    rows: Path, corpus_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = hashes(make(corpus_config(rows), "task_mb=1").folder)
    config, done, second = corpus_config(rows), 0, f"output_dir={tmp_path / 'two'}"
    whole, began = stages.do, 0

    def ended_before(*arguments: object) -> work.Done:
        nonlocal began
        began += 1
        if began > 1:
            raise KeyboardInterrupt
        return whole(*arguments)  # type: ignore[arg-type]

    for _ in range(100):
        monkeypatch.setattr(stages, "do", ended_before)
        # what is there is looked at anew in each call, and one task more is done
        began = -done
        try:
            assert hashes(make(config, "task_mb=1", second).folder) == wanted
            break
        except Interrupted:
            done += 1
    assert done > 10


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
def test_killed_with_its_workers_it_goes_on_to_the_same_bytes(
    rows: Path, corpus_config: Config, tmp_path: Path
) -> None:
    wanted = hashes(make(corpus_config(rows), "task_mb=1").folder)
    config, second = corpus_config(rows), f"output_dir={tmp_path / 'two'}"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = [sys.executable, program, config, second, "task_mb=1", "workers=2"]
    begun = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    documents = tmp_path / "two.work" / "documents"
    while begun.poll() is None and not list(documents.glob("*")):
        time.sleep(0.02)
    time.sleep(1.5)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert hashes(make(config, "task_mb=1", second).folder) == wanted


def test_a_result_that_was_changed_is_made_again(rows: Path, corpus_config: Config, tmp_path: Path) -> None:
    config = corpus_config(rows, keep_work=True)
    wanted = hashes(make(config).folder)
    shutil.rmtree(tmp_path / "out")
    folder = tmp_path / "out.work"
    texts = folder / "documents" / "00000" / "texts.parquet"
    content = bytearray(texts.read_bytes())
    content[len(content) // 2] ^= 1
    texts.write_bytes(content)
    (folder / "signatures" / "00000" / "meta.json").write_text("")  # a marker alone proves nothing
    shutil.rmtree(folder / "tokens" / "00000")
    assert hashes(make(config).folder) == wanted
    assert read_sealed(folder / "documents" / "00000" / "meta.json")["key"]


def test_a_file_that_was_changed_is_read_again(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [prose(rng) for _ in range(30)])
    config = corpus_config(rows, keep_work=True)
    make(config)
    shutil.rmtree(tmp_path / "out")
    write_rows(rows, [prose(rng) for _ in range(31)])
    assert make(config).manifest.n_read == 31


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a', "rows.jsonl:4001: not valid JSON"),
        ('{"body": "a"}', "rows.jsonl:4001: no text in column 'text' .columns here: body."),
        ('{"text": "\\ud800 half"}', "rows.jsonl:4001: the text holds half a character"),
    ],
)
def test_a_bad_row_far_inside_a_file_is_named_by_its_line(
    line: str, message: str, tmp_path: Path, rng: random.Random, corpus_config: Config
) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"text": prose(rng)})
    path.write_text(f"{good}\n" * 4000 + f"{line}\n" + f"{good}\n" * 10)
    with pytest.raises(HoneError, match=message):
        make(corpus_config(path), "task_mb=1")
    ran = make(corpus_config(path, on_bad_row="skip"), "task_mb=1")
    bad = next(one for one in ran.manifest.dropped if "cannot be read" in one.reason)
    assert bad.count == 1 and bad.first == ["rows.jsonl:4001"]


def test_nothing_to_read_and_nothing_left(tmp_path: Path, corpus_config: Config) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HoneError, match="no data files found here"):
        make(corpus_config(tmp_path / "empty"))
    with pytest.raises(HoneError, match="no such file or folder"):
        make(corpus_config(tmp_path / "nowhere"))
    rows = write_rows(tmp_path / "rows.jsonl", ["short"])
    with pytest.raises(HoneError, match="no document is left to train on: 1 × shorter than 100"):
        make(corpus_config(rows))
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00cut off")
    with pytest.raises(HoneError, match=r"cut.jsonl.gz: the compressed file is cut off or damaged"):
        make(corpus_config(tmp_path / "cut.jsonl.gz"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("files: a\nlerning: 1\n", r"corpus.yaml:2: unknown key 'lerning'"),
        ("files: a\nworker: 1\n", r"(?s)corpus.yaml:2: unknown key 'worker'.*did you mean 'workers'"),
        ("files: a\noutput:\n  files: b\n", r"(?s)unknown key 'files'.*belongs to the section 'read'"),
        ("files: a\nworkers: many\n", r"corpus.yaml:2: workers must be a whole number, at least 1, at most 4096"),
        ("workers: 1\n", "nothing to read"),
        ("files: a\nlicences: [mit]\n", r"corpus.yaml:2: licence_column and licences go together"),
        ("files: a\nexecutor: slurm\n", "a Slurm partition is missing"),
        ("- a\n", "`section:` lines were expected"),
        ("files: a\nx: hf_abcdefghijklmnopqrstuvwxyz\n", r"corpus.yaml:2: a password or token stands here"),
    ],
)
def test_mistakes_of_the_configuration_are_named_with_their_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(text)
    with pytest.raises(HoneError, match=message):
        load(str(path))


def test_a_worker_that_is_killed_is_noticed(rows: Path, corpus_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future
    from concurrent.futures.process import BrokenProcessPool

    from hone.corpus.workers import _result

    broken: Future[work.Done] = Future()
    broken.set_exception(BrokenProcessPool())
    with pytest.raises(HoneError, match=r"(?s)a worker was killed.*fewer workers.*goes on"):
        _result(broken)


def test_a_second_run_in_the_same_folder_is_refused(rows: Path, corpus_config: Config, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / "out.work.lock"), pytest.raises(HoneError, match="another `hone corpus run` works here"):
        make(corpus_config(rows))
    make(corpus_config(rows))


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, for a small file system")
@pytest.mark.slow
def test_a_full_disk_is_named_and_the_same_command_goes_on(rows: Path, corpus_config: Config, tmp_path: Path) -> None:
    wanted = hashes(make(corpus_config(rows), "task_mb=1").folder)
    small = tmp_path / "small"
    small.mkdir()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = f"{sys.executable} {program} {corpus_config(rows)} task_mb=1 output_dir={small / 'out'}"
    script = f"mount -t tmpfs -o size=700k tmpfs {small} && {{ {run}; echo rc=$?; mount -o remount,size=100m {small}; "
    script += f"{run}; cp -r {small}/out {tmp_path}/copy; }}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=250)
    if "rc=" not in done.stdout:
        pytest.skip(f"no small file system here: {done.stderr[-200:]}")
    assert "cannot write: the disk is full" in done.stderr and "rc=1" in done.stdout, done.stderr[-2000:]
    assert hashes(tmp_path / "copy") == wanted
