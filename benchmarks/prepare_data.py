"""Data preparation measured: hone against `datasets.map` doing the same job, and the memory it takes.

Both sides read the same rows of instruction + input + output, spell the same template, tokenise prompt and answer with
the same tokenizer, and leave ids and labels on the disk. They are compared token by token first, then timed in
alternation in one process, each time with an empty cache. hone also hashes the file, splits off its validation rows
and builds its index in that time. Nothing is downloaded: without --data the rows are Python's own library.

    python benchmarks/prepare_data.py
    python benchmarks/prepare_data.py --data rows.json.gz --tokenizer path/to/tokenizer --repeats 5
"""

import argparse
import ast
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MAP_BATCH = 1000  # the default of datasets.map
LONGEST_FUNCTION = 4000  # characters; longer ones are no answers anybody trains on
MADE_VOCABULARY = 8000


def main() -> None:
    options = parse_options()
    if options.child:
        print(json.dumps(measure_memory(json.loads(options.child))))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [Path(path).resolve() for path in options.data] or [write_made_rows(folder / "rows.jsonl", options.rows)]
        tokenizer_name = options.tokenizer or train_tokenizer(folder / "tokenizer", data)
        print(f"{machine_line()}\n")
        print(throughput(data, tokenizer_name, options.repeats, folder))
        print(memory(data, tokenizer_name, options.times, folder))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hone's data preparation against datasets.map")
    parser.add_argument("--data", nargs="+", default=[], metavar="FILE", help="rows of instruction(+input)+output")
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or hub name; default: trained on the rows")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--rows", type=int, default=20_000, help="at most so many made rows (default 20,000)")
    parser.add_argument("--times", type=int, default=50, help="memory: the larger file holds the rows so many times")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- rows -----------------------------------------------------------------------------------------------------------


def write_made_rows(path: Path, limit: int) -> Path:
    """Functions of Python's library as JSON lines: instruction (its docstring), input (its head), output."""
    with path.open("w", encoding="utf-8") as file:
        for count, row in enumerate(library_functions()):
            if count == limit:
                break
            file.write(json.dumps(row) + "\n")
    return path


def library_functions() -> Iterator[dict[str, str]]:
    """In the order of the files and of the lines: the same rows wherever the Python version is the same."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.relative_to(root).parts):
            continue
        source = path.read_bytes().decode("utf-8", errors="replace")
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except SyntaxError:  # a few files are broken on purpose
            continue
        lines = source.split("\n")
        for node in nodes:
            if not isinstance(node, ast.FunctionDef):
                continue
            output = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            about = (ast.get_docstring(node) or "").split("\n\n")[0]
            head = f"def {node.name}({', '.join(argument.arg for argument in node.args.args)})"
            if len(output) <= LONGEST_FUNCTION:
                yield {"instruction": f"Write {node.name} as in {path.stem}. {about}", "input": head, "output": output}


def read_rows(files: list[Path]) -> Iterator[dict[str, str]]:
    from hone.data.sources import read_rows

    for row in read_rows(files, on_bad_row="error", on_skip=print):
        yield dict(row.columns)


def write_repeated(path: Path, files: list[Path], times: int) -> Path:
    """The rows `times` times over; a changed word keeps them from being duplicates."""
    with path.open("w", encoding="utf-8") as file:
        for copy in range(times):
            for row in read_rows(files):
                file.write(json.dumps({**row, "instruction": f"{row['instruction']} (number {copy})"}) + "\n")
    return path


def train_tokenizer(folder: Path, files: list[Path]) -> str:
    from hone.data.tokenizer import save_tokenizer, train_bpe

    texts = (row["instruction"] + "\n" + row["output"] for row in read_rows(files))
    save_tokenizer(train_bpe(texts, vocab_size=MADE_VOCABULARY), folder)
    return str(folder)


# --- the two sides --------------------------------------------------------------------------------------------------


def spell(row: dict[str, Any]) -> tuple[str, str]:
    """Prompt and answer, written out here once more: a fault in hone's template would show as a difference."""
    given = f"### Input:\n{row['input']}\n\n" if row.get("input") else ""
    return f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n", row["output"]


def tokenise_row(row: dict[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    prompt, answer = spell(row)
    prompt_ids = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    answer_ids = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    answer_ids = [*answer_ids, tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + answer_ids, "labels": [-100] * len(prompt_ids) + answer_ids}


def tokenise_batch(batch: dict[str, list[Any]], tokenizer: Any) -> dict[str, list[list[int]]]:
    rows = [dict(zip(batch, values)) for values in zip(*batch.values())]
    prompts, answers = zip(*map(spell, rows))
    prompt_ids = tokenizer(list(prompts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    answer_ids = tokenizer(list(answers), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    end = [tokenizer.eos_token_id]
    return {
        "input_ids": [p + a + end for p, a in zip(prompt_ids, answer_ids)],
        "labels": [[-100] * len(p) + a + end for p, a in zip(prompt_ids, answer_ids)],
    }


def run_map(files: list[Path], tokenizer: Any, cache: Path, *, batched: bool, num_proc: int | None) -> Any:
    """Load and map with an empty cache; the data set of input_ids and labels."""
    from datasets import load_dataset

    dataset = load_dataset("json", data_files=[str(file) for file in files], split="train", cache_dir=str(cache))
    return dataset.map(
        tokenise_batch if batched else tokenise_row,
        batched=batched,
        batch_size=MAP_BATCH,
        num_proc=num_proc,
        fn_kwargs={"tokenizer": tokenizer},
        remove_columns=dataset.column_names,
    )


def run_hone(files: list[Path], tokenizer: Any, cache: Path, validation_percentage: float = 10.0) -> Any:
    """`hone.data.prepare.prepare` with an empty cache (or the one that an earlier call left in `cache`)."""
    from hone.config.schema import Config
    from hone.config.sections.data import DataSection
    from hone.data.prepare import prepare
    from hone.tasks.causal import TASK

    data = DataSection(
        train_file=[str(file) for file in files],
        template="instruction",
        validation_split_percentage=validation_percentage,
        token_cache_dir=str(cache),
        overlap="off",  # no part of the job
    )
    return prepare(Config(data=data), TASK, tokenizer)


def check_equal(prepared: Any, mapped: Any, tokenizer: Any, name: str) -> None:
    """Every id, every label and every border of the two must be the same; rows with an empty answer hone leaves out."""
    split = prepared.store.train
    at = 0
    for row in mapped:
        ids, labels = row["input_ids"], row["labels"]
        answer = [token for token in labels if token != -100]
        if not tokenizer.decode(answer[:-1]).strip():
            continue
        document = slice(at, at + len(ids))
        supervised = split.supervised[document] != 0
        ours = split.tokens[document].astype(np.int64)
        assert at in split.starts[np.searchsorted(split.starts, at) :][:1], f"{name}: a border differs"
        assert ours.tolist() == ids, f"{name}: ids differ"
        assert np.where(supervised, ours, -100).tolist() == labels, f"{name}: labels differ"
        at += len(ids)
    assert at == len(split.tokens), f"{name}: {at} tokens, hone has {len(split.tokens)}"


# --- throughput -----------------------------------------------------------------------------------------------------


def throughput(files: list[Path], tokenizer_name: str, repeats: int, folder: Path) -> str:
    import datasets
    from transformers.utils import logging

    from hone.data.tokenizer import load_tokenizer

    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    tokenizer = load_tokenizer(tokenizer_name)
    sides: dict[str, Callable[[Path], Any]] = {
        "hone prepare": lambda cache: run_hone(files, tokenizer, cache),
        "datasets.map, row by row": lambda cache: run_map(files, tokenizer, cache, batched=False, num_proc=None),
        f"datasets.map, batches of {MAP_BATCH}": lambda cache: run_map(
            files, tokenizer, cache, batched=True, num_proc=None
        ),
        f"datasets.map, batches of {MAP_BATCH}, num_proc=2": lambda cache: run_map(
            files, tokenizer, cache, batched=True, num_proc=2
        ),
    }
    ours, *theirs = sides
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        prepared = run_hone(files, tokenizer, Path(cache), validation_percentage=0)
        for name in theirs:  # also the warm-up: whatever is imported or built once is there after this
            with tempfile.TemporaryDirectory(dir=folder) as map_cache:
                check_equal(prepared, sides[name](Path(map_cache)), tokenizer, name)
        documents, tokens = prepared.store.train.n_documents, len(prepared.store.train.tokens)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            allow_threads()
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                began, cpu_began = time.perf_counter(), cpu_time()
                side(Path(cache))
                seconds[name].append(time.perf_counter() - began)
                cpu_seconds[name].append(cpu_time() - cpu_began)
    n_bytes = sum(len(text.encode()) for row in read_rows(files) for text in spell(row))
    rows = [
        [
            name,
            f"{n_bytes / 1e6 / statistics.median(times):.2f}",
            f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})",
            f"{statistics.median(cpu_seconds[name]):.2f}",
            "1" if name == ours else ratio(times, seconds[ours]),
            "1" if name == ours else ratio(cpu_seconds[name], cpu_seconds[ours]),
        ]
        for name, times in seconds.items()
    ]
    return (
        f"{documents:,} rows, {n_bytes / 1e6:.1f} MB of prompts and answers, {tokens:,} tokens, {repeats} rounds in "
        f"alternation. Ids, labels and borders of all {len(theirs)} are equal to hone's.\n\n"
        + markdown(["", "MB/s", "seconds: median (spread)", "CPU seconds", "faster: median (spread)", "less CPU"], rows)
    )


def allow_threads() -> None:
    """Let the tokenizer use its threads again: `datasets.map` with num_proc turns them off for the whole process."""
    os.putenv("TOKENIZERS_PARALLELISM", "true")  # os.environ is no longer the process's own after such a map


def cpu_time() -> float:
    """Processor seconds of this process, its threads and its finished children: hardly moved by other programs."""
    return sum(os.times()[:4])


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Their time over ours, round by round: what slows the machine down for a while slows both."""
    ratios = [a / b for a, b in zip(theirs, ours)]
    return f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"


# --- memory ---------------------------------------------------------------------------------------------------------


def memory(files: list[Path], tokenizer_name: str, times: int, folder: Path) -> str:
    """A process for the file, and one for a file with `times` its rows."""
    rows = []
    for name, paths in (
        ("as given", files),
        (f"{times} times longer", [write_repeated(folder / "repeated.jsonl", files, times)]),
    ):
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            task = {"files": [str(path) for path in paths], "tokenizer": tokenizer_name, "cache": cache}
            command = [sys.executable, __file__, "--child", json.dumps(task)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(
            [
                f"{name}: {found['documents']:,} rows",
                f"{found['tokens'] / 1e6:.2f}",
                f"{found['first_s']:.2f}",
                f"{found['cached_s']:.2f}",
                f"{found['peak'] / 1e6:.0f}",
                f"{(found['peak'] - found['before']) / 1e6:.0f}",
                f"{(found['cached_peak'] - found['cached_before']) / 1e6:.0f}",
            ]
        )
    header = [
        "hone prepare",
        "million tokens",
        "seconds",
        "seconds, cached",
        "peak MB",
        "above imports MB",
        "cached, above MB",
    ]
    return markdown(header, rows)


def measure_memory(task: dict[str, Any]) -> dict[str, float]:
    """Run in a fresh process: prepare twice, the second time from the token cache. Sizes in bytes."""
    from hone.data.tokenizer import load_tokenizer

    files, tokenizer = [Path(file) for file in task["files"]], load_tokenizer(task["tokenizer"])
    with tempfile.TemporaryDirectory() as warm:  # imports everything; one row costs nothing
        row = Path(warm, "row.jsonl")
        row.write_text(json.dumps(next(read_rows(files))) + "\n", encoding="utf-8")
        run_hone([row], tokenizer, Path(warm, "cache"), validation_percentage=0)
    found: dict[str, float] = {}
    for name in ("", "cached_"):
        found[f"{name}before"] = restart_peak()
        began = time.perf_counter()
        prepared = run_hone(files, tokenizer, Path(task["cache"]))
        found["cached_s" if name else "first_s"] = time.perf_counter() - began
        found[f"{name}peak"] = peak_memory()
        assert prepared.cached == bool(name)
        splits = prepared.store.meta["splits"].values()
        found["documents"] = sum(split["documents"] for split in splits)
        found["tokens"] = sum(split["tokens"] for split in splits)
        del prepared
    return found


def restart_peak() -> int:
    """Forget the peak so far, where the system can (Linux); the peak as it then stands, in bytes."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """Most bytes of memory this process held. On Linux from /proc: getrusage also counts the parent's, before exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- what is printed ------------------------------------------------------------------------------------------------


def machine_line() -> str:
    from hone.hardware import count_cpus, read_cgroup, read_cpu

    model, _ = read_cpu()
    versions = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "transformers", "datasets", "numpy"))
    cpus = count_cpus(read_cgroup().cpus).usable
    return f"{model}, {cpus:g} CPUs; Python {platform.python_version()}, {versions}; {date.today()}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
