"""Job scripts for Slurm: what they ask for, and what they do, run by bash with Slurm's programs replaced by others."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hone.cli import app
from hone.errors import HoneError
from hone.slurm import MOST_REQUEUES, Job, Resources, gather_script, script, submit

TRAINING = """#!/bin/bash
printf '%s\\n' "$@" > words.txt
exit $ENDS_WITH
"""
STUBS = {
    "srun": '#!/bin/bash\n[ "$1" = --kill-on-bad-exit=1 ] || exit 99\nshift\n"$@"\n',
    "scontrol": '#!/bin/bash\nif [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "$@" > requeued.txt; fi\n',
}


@pytest.fixture
def bash(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script as Slurm would; the training writes its words to words.txt and ends as it is told."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {**STUBS, "python": TRAINING}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(text: str, ends_with: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": f"{programs}:{os.environ['PATH']}", "ENDS_WITH": str(ends_with), "SLURM_JOB_ID": "17"}
        environ |= {"SLURM_JOB_NODELIST": "n[1-2]", **variables}
        return subprocess.run(["bash"], input=text, cwd=tmp_path, env=environ, capture_output=True, text=True)

    return run


def options(text: str) -> dict[str, str]:
    """The options for sbatch: they end at the first line that is no comment."""
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    head = lines[1 : next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    pairs = [line.removeprefix("#SBATCH --").partition("=") for line in head]
    assert all(line.startswith("#SBATCH --") for line in head)
    return {name: value for name, _, value in pairs}


def test_what_is_asked_for_stands_in_the_head() -> None:
    asked = Resources("2-12", nodes=2, gpus=4, cpus=16, memory="64G", partition="gpu", account="me", options=["--x=1"])
    found = options(script(Job(["my.yaml"], asked, "python")))
    assert found == {
        "job-name": "hone",
        "time": "2-12",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "4",
        "cpus-per-task": "16",
        "mem": "64G",
        "partition": "gpu",
        "account": "me",
        "x": "1",
        "signal": "TERM@300",
        "requeue": "",
        "open-mode": "append",
        "output": "slurm-%j.out",
    }


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        (Resources("10"), []),
        (Resources("10", gpus=1), []),
        (Resources("10", gpus=4), ["nproc_per_node=4"]),
        (Resources("10", nodes=2), ["nnodes=2", "nproc_per_node=1", "rdzv_endpoint=n1:29500", "rdzv_id=17"]),
    ],
)
def test_the_training_gets_its_words_and_its_processes(
    bash: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, asked: Resources, more: list[str]
) -> None:
    words = ["my file.yaml", "stop=['#', '$HOME']"]
    assert bash(script(Job(words, asked, "python"))).returncode == 0
    assert (tmp_path / "words.txt").read_text().splitlines() == ["-m", "hone", "train", *words, *more]
    assert not (tmp_path / "requeued.txt").exists()


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [
        (0, 0, False),
        (1, 0, False),
        (130, 0, True),
        (143, 0, True),
        (130, MOST_REQUEUES - 1, True),
        (130, MOST_REQUEUES, False),
    ],
)
def test_an_interrupted_training_goes_back_into_the_queue_and_a_failed_one_does_not(
    bash: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, code: int, restarts: int, again: bool
) -> None:
    done = bash(script(Job(["my.yaml"], Resources("10"), "python")), code, SLURM_RESTART_COUNT=str(restarts))
    assert done.returncode == code
    file = tmp_path / "requeued.txt"
    assert (file.read_text().split() if file.exists() else None) == (["requeue", "17"] if again else None)


def test_each_task_of_an_array_has_its_own_words(
    bash: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    points = [["seed=1", "output_dir=/a b/seed-1"], ["seed=2", "output_dir=/a b/seed-2"]]
    job = Job(["my.yaml"], Resources("10", setup=["export X=1"]), "python", points=points, gather=["repeat", "my.yaml"])
    assert options(script(job))["array"] == "0-1"
    for number, point in enumerate(points):
        assert bash(script(job), SLURM_ARRAY_TASK_ID=str(number)).returncode == 0
        assert (tmp_path / "words.txt").read_text().splitlines()[3:] == ["my.yaml", *point]
    assert bash(gather_script(job)).returncode == 0
    assert (tmp_path / "words.txt").read_text().splitlines() == ["-m", "hone", "repeat", "my.yaml"]
    assert "export X=1" in gather_script(job) and "array" not in options(gather_script(job))


def test_handing_in_gives_the_numbers_and_makes_the_second_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "sbatch"
    stub.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/given.txt\ncat >> {tmp_path}/text.txt\necho "41;cluster"\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = Job(["my.yaml"], Resources("10"), "python", points=[["seed=1"]], gather=["repeat", "my.yaml"])
    assert submit(job) == ["41", "41"]
    given = (tmp_path / "given.txt").read_text().splitlines()
    assert given == ["--parsable", "--parsable --dependency=afterok:41 --kill-on-invalid-dep=yes"]
    assert (tmp_path / "text.txt").read_text() == script(job) + gather_script(job)
    stub.write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    with pytest.raises(HoneError, match="Slurm refuses the job: invalid partition"):
        submit(job)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(HoneError, match="no sbatch here"):
        submit(job)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 30)
    return tmp_path


def launched(*words: str) -> "tuple[int, str]":
    done = CliRunner().invoke(app, ["launch", *words])
    return done.exit_code, done.output


def test_the_command_prints_the_script_of_this_python(rows: Path) -> None:
    code, text = launched("slurm", "rows.jsonl", "--gpus", "2", "--learning_rate", "1e-4")
    assert code == 0
    assert f"{sys.executable} -m hone train rows.jsonl --learning_rate 1e-4 nproc_per_node=2" in text


def test_seeds_and_lists_become_arrays(rows: Path) -> None:
    code, text = launched("slurm", "rows.jsonl", "--seeds", "3,5", "-o", "my.sbatch")
    assert code == 0 and "sbatch --dependency=afterok:NUMBER my-together.sbatch" in text
    array = (rows / "my.sbatch").read_text()
    assert f"0) point=(seed=3 output_dir={rows}/runs/rows/seed-3)" in array
    assert "hone repeat rows.jsonl --seeds 3,5" in (rows / "my-together.sbatch").read_text()
    code, text = launched("slurm", "rows.jsonl", "lr=[1e-4,3e-4]")
    assert f"1) point=(learning_rate=0.0003 output_dir={rows}/runs/rows/learning_rate-0.0003)" in text
    assert "hone search rows.jsonl 'lr=[1e-4,3e-4]'" in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["pbs", "rows.jsonl"], "no scheduler 'pbs'"),
        (["slurm", "rows.jsonl", "--time", "soon"], "not a time"),
        (["slurm", "rows.jsonl", "--mem", "lots"], "not an amount of memory"),
        (["slurm", "rows.jsonl", "--option", "qos=high"], "not an option of sbatch"),
        (["slurm", "rows.jsonl", "lr=1e-5..1e-3"], "depends on the results before"),
        (["slurm", "rows.jsonl", "lr=[1,2]", "--seeds", "3"], "both seeds and lists"),
        (["slurm", "rows.jsonl", "learning_rte=1"], "learning_rate"),
        (["slurm"], "train_file"),
    ],
)
def test_mistakes_are_known_before_the_queue(rows: Path, words: list[str], reason: str) -> None:
    code, text = launched(*words)
    assert code == 1 and reason in text and "Traceback" not in text, text
