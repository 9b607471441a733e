"""`hone corpus` measured: the same bytes with 1, 2, 4 workers, after kills and a full disk; near-copies; speed; memory.

The text is Python's own files (this interpreter's packages), copied several times with other names, so that a copy is
another document and not a near one. Each part prints a table; exit code 1 if bytes differ.

    python benchmarks/corpus.py                        # about ten minutes on two cores with 200 MB
    python benchmarks/corpus.py --mb 2000 --parts speed
    python benchmarks/corpus.py --parts workers kills disk near
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from hone.show import table

PARTS = ("workers", "kills", "disk", "near", "speed")
PROGRAM = """
import json, sys
from dataclasses import asdict
from hone.corpus.load import load
from hone.corpus.run import run
if __name__ == "__main__":
    ran = run(load(sys.argv[1], sys.argv[2:]), print)
    print("STAGES", json.dumps([asdict(stage) for stage in ran.stages]))
"""
ROWS_A_FILE = 2000
NEAR_WORDS, NEAR_PAIRS = 300, 200
MAP_MB = 40  # of text, for datasets.map
FULL_SHARE = 0.4  # of the work folder, which a small file system has room for


def main() -> None:
    options = parse_options()
    wrong = 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="corpus-") as name:
        folder = Path(name)
        (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
        n_bytes = write_text(folder / "rows", options.mb)
        print(f"{n_bytes / 1e6:,.0f} MB of text in {len(list((folder / 'rows').iterdir()))} files\n", flush=True)
        config(folder / "corpus.yaml", folder / "rows", options.task_mb)
        for part in options.parts:
            wrong += {"workers": workers, "kills": kills, "disk": full_disk, "near": near, "speed": speed}[part](folder)
    raise SystemExit(1 if wrong else 0)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mb", type=int, default=200, help="of text (default 200)")
    parser.add_argument("--task-mb", type=int, default=16, help="of a task (default 16)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where the work is done; default: the system's")
    return parser.parse_args()


# ---- text ------------------------------------------------------------------------------------------------------------


def write_text(folder: Path, mb: int) -> int:
    """Rows of Python files, from the second round on with other names. Bytes of text."""
    folder.mkdir()
    written = 0
    rows: list[str] = []
    for number, text in enumerate(salted(mb)):
        written += len(text.encode())
        rows.append(json.dumps({"text": text}))
        if len(rows) == ROWS_A_FILE or written >= mb * 1e6:
            (folder / f"{number:08d}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            rows = []
        if written >= mb * 1e6:
            break
    return written


def salted(mb: int) -> Iterator[str]:
    paths = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    for copy in range(1 + mb):
        for path in paths:
            try:
                text = path.read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            yield renamed(text, copy) if copy else text


def renamed(text: str, copy: int) -> str:
    """Every longer word from n to z is another one, the same wherever it stands in this copy."""
    return re.sub(r"\b[n-z]\w{3,}\b", lambda word: f"{word[0][0]}{zlib.crc32(word[0].encode(), copy) % 10**4}", text)


def config(path: Path, rows: Path, task_mb: int) -> None:
    path.write_text(f"files: {rows}\nquality: code\ntask_mb: {task_mb}\nshard_tokens: 5000000\n", encoding="utf-8")


def command(folder: Path, out: str, workers: int) -> list[str]:
    settings = [f"output_dir={folder / out}", f"workers={workers}"]
    return [sys.executable, str(folder / "program.py"), str(folder / "corpus.yaml"), *settings]


def make(folder: Path, out: str, workers: int) -> list[dict[str, float]]:
    done = subprocess.run(command(folder, out, workers), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.split("STAGES ")[1])


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]


# ---- the parts -------------------------------------------------------------------------------------------------------


def workers(folder: Path) -> int:
    """1, 2 and 4 workers: the same bytes."""
    rows, found = [], []
    for n in (1, 2, 4):
        began = time.perf_counter()
        make(folder, f"workers-{n}", n)
        found.append(digest(folder / f"workers-{n}"))
        rows.append([str(n), f"{time.perf_counter() - began:.0f} s", found[-1]])
    print(table(["workers", "time", "SHA-256 of all files begins"], rows) + "\n", flush=True)
    return int(len(set(found)) > 1)


def reference(folder: Path) -> str:
    if not (folder / "workers-1").exists():
        make(folder, "workers-1", 1)
    return digest(folder / "workers-1")


def kills(folder: Path) -> int:
    """SIGKILL at ten moments of a run with two workers, one after another; then to the end."""
    wanted = reference(folder)
    began = time.perf_counter()
    make(folder, "undisturbed", 2)
    whole = time.perf_counter() - began
    rows, rng, wrong = [], random.Random(0), 0
    for trial in range(10):
        out, delay = f"killed-{trial}", (trial + rng.random()) / 10 * whole
        begun = subprocess.Popen(command(folder, out, 2), stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay)
        begun.send_signal(signal.SIGKILL)  # its workers end themselves
        begun.wait()
        make(folder, out, 2)
        same = digest(folder / out) == wanted
        wrong += not same
        rows.append([f"{delay:.1f} s of {whole:.1f}", "the same" if same else "DIFFERENT"])
        shutil.rmtree(folder / out)
    print(table(["killed after", "bytes, when it had gone on"], rows) + "\n", flush=True)
    return wrong


def full_disk(folder: Path) -> int:
    """A file system that is too small, then enlarged."""
    wanted = reference(folder)
    make(folder, "kept", 1)
    n_bytes = sum(path.stat().st_size for path in (folder / "kept").iterdir())
    small = folder / "small"
    small.mkdir()
    run = " ".join([*command(folder, "small/out", 2)])
    script = f"mount -t tmpfs -o size={int(n_bytes * FULL_SHARE)} tmpfs {small} && {{ {run}; echo code $?; "
    script += f"mount -o remount,size=20g {small}; {run}; cp -r {small}/out {folder}/from-small; }}"
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False)
    message = next((line for line in done.stderr.splitlines() if "disk" in line), done.stderr[-300:])
    same = (folder / "from-small").exists() and digest(folder / "from-small") == wanted
    message = re.sub(r"\S*/(?=small)", "…/", message)
    print(f"full disk: {message}\nenlarged, the same command: {'the same bytes' if same else 'DIFFERENT'}\n")
    return int(not same)


def near(folder: Path) -> int:
    """Planted near-copies: how many are found, beside the stated chance; and how many of other texts by mistake."""
    from hone.corpus.near import Signatures, chance_to_be_found
    from hone.corpus.schema import NearSection

    rng, rules = random.Random(0), NearSection()
    step = Signatures(folder / "signatures", rules)
    rows = []
    originals = [" ".join(f"w{rng.randrange(5000)}" for _ in range(NEAR_WORDS)) for _ in range(NEAR_PAIRS)]
    signed = [step.get_signature(step.get_shingles(text)) for text in originals]
    for changed in (1, 2, 4, 8, 16, 32):
        chances, found = [], 0
        for text, own in zip(originals, signed):
            words = text.split()
            for at in rng.sample(range(len(words)), changed):
                words[at] = f"x{rng.randrange(10**6)}"
            runs = [set(step.get_shingles(one).tolist()) for one in (text, " ".join(words))]
            chances.append(chance_to_be_found(len(runs[0] & runs[1]) / len(runs[0] | runs[1]), rules))
            other = step.get_signature(step.get_shingles(" ".join(words)))
            found += any(a == b for a, b in zip(own, other))
        rows.append([f"{changed} of {NEAR_WORDS}", f"{sum(chances) / NEAR_PAIRS:.3f}", f"{found / NEAR_PAIRS:.3f}"])
    pairs = [(i, j) for i in range(NEAR_PAIRS) for j in range(i)]
    wrong = sum(any(a == b for a, b in zip(signed[i], signed[j])) for i, j in pairs)
    print(table(["words changed", "stated chance", f"found of {NEAR_PAIRS}"], rows))
    print(f"texts that are not copies: {wrong} of {len(pairs):,} pairs taken for one\n", flush=True)
    return 0


def speed(folder: Path) -> int:
    """MB/s of each stage with two workers, the memory, and `datasets.map` on a part of the same text.

    A run that somebody kills meanwhile is started again: the same command goes on.
    """
    shutil.rmtree(folder / "fast", ignore_errors=True)
    n_bytes = sum(path.stat().st_size for path in (folder / "rows").iterdir())
    began, code, kills = time.perf_counter(), -9, -1
    memory: list[tuple[float, int]] = []
    took: dict[str, tuple[float, int]] = {}  # stage -> seconds, most memory
    while code == -9:
        kills += 1
        code = watched(command(folder, "fast", 2), memory, took)
    whole = time.perf_counter() - began
    rows = [
        [name, f"{s:.1f} s", f"{n_bytes / 1e6 / max(s, 1e-3):,.1f}", f"{most / 1e6:,.0f} MB"]
        for name, (s, most) in took.items()
    ]
    rows.append(
        ["in all", f"{whole:.1f} s", f"{n_bytes / 1e6 / whole:,.1f}", f"{max(n for _, n in memory) / 1e6:,.0f} MB"]
    )
    print(table(["stage, two workers", "time", "MB/s of input", "memory at most"], rows))
    found = [n for _, n in memory]
    thirds = [max(found[i * len(found) // 3 : (i + 1) * len(found) // 3]) / 1e6 for i in range(3)]
    print("memory of all processes, the most in each third of the time: " + ", ".join(f"{m:,.0f} MB" for m in thirds))
    print(f"killed {kills} times; manifest {digest_of_manifest(folder / 'fast')}; load {os.getloadavg()[2]:.1f}")
    print(f"datasets.map, two processes, tokenising and hashing alone: {by_map(folder):,.1f} MB/s\n", flush=True)
    return int(code != 0)


def watched(words: list[str], memory: list[tuple[float, int]], took: dict[str, tuple[float, int]]) -> int:
    """Run a program to its end, and its exit code; what it says of each stage ends a stretch of time."""
    begun = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert begun.stdout is not None
    print(f"process {begun.pid}", file=sys.stderr, flush=True)
    watching = threading.Thread(target=watch, args=(begun.pid, memory), daemon=True)
    watching.start()
    last = time.perf_counter()
    for line in begun.stdout:
        print(line, end="", file=sys.stderr, flush=True)
        name, now = line.partition(":")[0], time.perf_counter()
        if name.isalpha() and name.islower():
            before = took.get(name, (0.0, 0))
            most = max((n for at, n in memory if at >= last), default=0)
            took[name] = (before[0] + now - last, max(before[1], most))
        last = now
    return begun.wait()


def digest_of_manifest(folder: Path) -> str:
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()[:16]


def watch(pid: int, memory: list[tuple[float, int]]) -> None:
    """Time, and proportional memory of a process and its children, twice a second."""
    process = psutil.Process(pid)
    while psutil.pid_exists(pid) and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
            alive = [process, *process.children(recursive=True)]
            memory.append((time.perf_counter(), sum(one.memory_full_info().pss for one in alive)))
        time.sleep(0.5)


def by_map(folder: Path) -> float:
    """MB/s of the plain way: load_dataset, then map with the same tokenizer in two processes."""
    os.environ["HF_DATASETS_CACHE"], os.environ["TOKENIZERS_PARALLELISM"] = str(folder / "cache"), "false"
    from datasets import load_dataset

    from hone.data.tokenizer import load_tokenizer

    files, n_bytes = [], 0
    for path in sorted((folder / "rows").iterdir()):
        if n_bytes < MAP_MB * 1e6:
            files.append(str(path))
            n_bytes += path.stat().st_size
    tokenizer = load_tokenizer("hone-base")

    def encode(batch: dict[str, list[str]]) -> dict[str, list[object]]:
        hashes = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in batch["text"]]
        return {"input_ids": tokenizer(batch["text"])["input_ids"], "hash": hashes}

    began = time.perf_counter()
    rows = load_dataset("json", data_files=files, split="train")
    rows.map(encode, batched=True, num_proc=2, remove_columns=["text"])
    return n_bytes / 1e6 / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
