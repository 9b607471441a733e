"""What docs/choosing.md advises, measured: method, rate, rank, rows and epochs, on two small models.

Each cell of the grid is one whole training, on rows drawn with its seed. Its outcome is the loss of the same held-out
items before and after. The most telling cells come first, each is appended to OUT/cells.jsonl when it is done, and the
same command goes on where it was. Nothing is tuned on other items than those the tables show: read differences between
neighbouring cells with that in mind.

    python benchmarks/choosing.py run --out out/choosing                      # hone-base on the demo's functions
    python benchmarks/choosing.py run --out out/choosing --stories MODEL --text input.txt
    python benchmarks/choosing.py table --out out/choosing > docs/figures/choosing.csv

MODEL and input.txt of the table: karpathy's stories260K as a model folder, and tinyshakespeare.
"""

import argparse
import csv
import json
import logging
import os
import random
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

BASE, STORIES = "hone-base", "stories260K"
RATES = {
    "full": (1e-3, 3e-3, 5e-5, 3e-4),
    "lora": (3e-3, 1e-2, 1e-3, 2e-4),
    "freeze": (3e-3, 1e-2, 1e-3, 2e-4),
}
SIZES = {"full": 0, "lora": 16, "freeze": 2}
EPOCHS = {8: 5, 60: 3, 400: 2}  # where nothing else is said
BATCH = {8: 2}  # rows a step, else 8
FULL = 1e-3  # full training's rate, where it stands for itself
COMMON = {
    "max_length": 256,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "logging_steps": 1000,
    "eval_strategy": "no",
    "save_strategy": "no",
    "eval_base": False,
    "sample_prompts": 0,
    "overlap": "off",  # near copies are left out once, below
    "max_new_tokens": 128,
    "temperature": 0.0,
    "overwrite": True,
}


BySeed = dict[int, dict[str, Any]]  # a setting's results


@dataclass(frozen=True)
class Cell:
    """One training. size: blocks trained (freeze) or rank (lora). extra: what is measured besides."""

    base: str
    method: str
    size: int
    rate: float
    rows: int
    epochs: int
    seed: int
    extra: str = ""


def main() -> None:
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    if options.action == "table":
        write_table(results(options.out))
        return
    os.environ.setdefault("HONE_CACHE", str(options.out / "cache"))
    logging.getLogger("hone").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    models = {BASE: BASE, **({STORIES: options.stories} if options.stories else {})}
    write_functions(options.out)
    write_general(options.out)
    if options.text:
        write_passages(options.out, options.text)
    done = {cell for cell, _ in results(options.out)}
    for cell in grid():
        if cell.base in models and cell.seed in options.seeds and cell not in done:
            done.add(cell)
            found = (
                measure_base(cell, models, options.out) if cell.method == "base" else train(cell, models, options.out)
            )
            with (options.out / "cells.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(cell), **found}) + "\n")
            print(cell, f"{found['loss']:.4f}", f"{found['seconds']:.0f} s", found.get("passed", ""), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the measurements behind docs/choosing.md")
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--out", type=Path, required=True, help="folder of rows, results and the last run")
    parser.add_argument("--stories", metavar="MODEL", help="a second model, trained on passages of --text")
    parser.add_argument("--text", type=Path, help="a long text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="only these (default 0 1 2)")
    return parser.parse_args()


# ---- the grid, the most telling cells first -----------------------------------------------------------------------


def grid() -> Iterator[Cell]:
    for base in (BASE, STORIES):
        yield Cell(base, "base", 0, 0.0, 0, 0, 0, "general" if base == BASE else "")
    for base in (BASE, STORIES):
        for rows in (60, 8):
            yield from rates(base, rows, 0)
    yield from rates(BASE, 400, 0)
    yield from methods(0)
    for rows in (60, 8, 400):
        yield from ranks(BASE, rows, 0)
    yield from epochs(BASE, 0)
    for rows in (60, 400, 8):
        for seed in (1, 2):
            yield from advised(rows, seed)
    for seed in (1, 2):
        yield from epochs(BASE, seed)
        yield from ranks(BASE, 60, seed)


def rates(base: str, rows: int, seed: int) -> Iterator[Cell]:
    """Method x rate. Two blocks, and a LoRA of rank 16, stand for their methods."""
    for method, size in SIZES.items():
        for rate in RATES[method][: 3 if rows == 400 else 4]:
            yield Cell(base, method, size, rate, rows, EPOCHS[rows], seed)


def advised(rows: int, seed: int) -> Iterator[Cell]:
    """The cells that the page's advice rests on."""
    for method, rate in (("full", 1e-3), ("lora", 1e-2), ("freeze", 3e-3), ("full", 5e-5), ("lora", 3e-3)):
        yield Cell(BASE, method, SIZES[method], rate, rows, EPOCHS[rows], seed)


def methods(seed: int) -> Iterator[Cell]:
    """As long as the demo trains, with its unit tests, and how well general Python is predicted afterwards."""
    for method, rate in (("full", 1e-3), ("freeze", 1e-2), ("lora", 1e-2)):
        yield Cell(BASE, method, SIZES[method], rate, 400, 4, seed, "general, tests")


def ranks(base: str, rows: int, seed: int) -> Iterator[Cell]:
    for rank in (4, 64):
        for rate in (1e-3, 3e-3, 1e-2):
            yield Cell(base, "lora", rank, rate, rows, EPOCHS[rows], seed)


def epochs(base: str, seed: int) -> Iterator[Cell]:
    for rows, numbers in ((60, (1, 2, 5, 8)), (400, (1,))):
        for n in numbers:
            yield Cell(base, "full", 0, FULL, rows, n, seed)


# ---- rows ---------------------------------------------------------------------------------------------------------


def write_functions(out: Path) -> None:
    """The demo's training rows that are no near copy of a held-out one (413); every other held-out one (95)."""
    import hone
    from hone.demo import lay_out

    if (out / "hone-base.test.jsonl").exists():
        return
    lay_out(out / "demo")
    prepared = hone.prepare(hone.load_config(out / "demo" / "demo.yaml"))
    lines = {
        side: (out / "demo" / f"functions.{side}.jsonl").read_text("utf-8").splitlines() for side in ("train", "test")
    }
    kept = [lines["train"][i] for i in np.unique(prepared.train.documents)]
    write_lines(out / f"{BASE}.train.jsonl", kept)
    write_lines(out / f"{BASE}.test.jsonl", lines["test"][::2])


def write_passages(out: Path, text: Path) -> None:
    """Passages of some 400 characters: 95 of the last tenth of the text, 450 of the rest, evenly spaced."""
    whole = text.read_text(encoding="utf-8")
    border = len(whole) * 9 // 10
    for side, begin, end, n in (("train", 0, border, 450), ("test", border, len(whole), 95)):
        starts = [begin + (end - begin - 500) * i // n for i in range(n)]
        rows = [json.dumps({"text": whole[whole.index("\n", start) + 1 :][:400]}) for start in starts]
        write_lines(out / f"{STORIES}.{side}.jsonl", rows)


def write_general(out: Path) -> None:
    """General Python: 60 passages of 800 characters of the standard library, which hone-base has read, and of click,
    which was held out of its corpus.
    """
    import click

    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    for name, files in (("library", library), ("click", sorted(Path(click.__file__).parent.glob("*.py")))):
        whole = [file.read_text("utf-8") for file in files]
        passages = [text[i : i + 800] for text in whole for i in range(2000, len(text) - 800, 5000)]
        chosen = [passages[i * len(passages) // 60] for i in range(60)]
        write_lines(out / f"{name}.jsonl", [json.dumps({"text": passage}) for passage in chosen])


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# ---- one cell -----------------------------------------------------------------------------------------------------


def train(cell: Cell, models: Mapping[str, str], out: Path) -> dict[str, Any]:
    """Train the cell, and what its held-out items cost it: one loss and number of tokens an item."""
    import hone
    from hone.results import Items

    rows = (out / f"{cell.base}.train.jsonl").read_text("utf-8").splitlines()
    random.Random(cell.seed).shuffle(rows)
    write_lines(out / "rows.jsonl", rows[: cell.rows])
    began = time.perf_counter()
    run = hone.train(hone.load_config(keys_of(cell, models, out)))
    items = run.read(Items, "tuned.items")
    assert items
    loss = items.metrics["loss"]
    found: dict[str, Any] = {"seconds": time.perf_counter() - began, **of_items(loss.numerator, loss.weight)}
    if "tests" in cell.extra:
        code = run.code()[1]
        assert code
        found["passed"] = sum(any(answers) for answers in code.passed.values())
    if "general" in cell.extra:
        found |= {name: general(str(run.folder), out / f"{name}.jsonl", out) for name in ("library", "click")}
    return found


def keys_of(cell: Cell, models: Mapping[str, str], out: Path) -> dict[str, Any]:
    test = str(out / f"{cell.base}.test.jsonl")
    own: dict[str, Any] = {
        "full": {},
        "freeze": {"num_unfrozen_layers": cell.size},
        "lora": {"lora_r": cell.size, "lora_alpha": 2 * cell.size},
    }[cell.method]
    return {
        **COMMON,
        **own,
        "model_name_or_path": models[cell.base],
        "template": "instruction" if cell.base == BASE else "plain",
        "train_file": str(out / "rows.jsonl"),
        "validation_file": test,
        "method": cell.method,
        "learning_rate": cell.rate,
        "num_train_epochs": cell.epochs,
        "per_device_train_batch_size": BATCH.get(cell.rows, 8),
        "seed": cell.seed,
        "code_tasks": test if "tests" in cell.extra else None,
        "output_dir": str(out / "run"),
    }


def measure_base(cell: Cell, models: Mapping[str, str], out: Path) -> dict[str, Any]:
    """The base on the same items."""
    began = time.perf_counter()
    template = "instruction" if cell.base == BASE else "plain"
    found = losses(models[cell.base], out / f"{cell.base}.test.jsonl", template, out)
    if cell.extra:
        found |= {name: general(models[BASE], out / f"{name}.jsonl", out) for name in ("library", "click")}
    return {"seconds": time.perf_counter() - began, **found}


def general(model: str, file: Path, out: Path) -> dict[str, Any]:
    return losses(model, file, "plain", out)


def losses(model: str, file: Path, template: str, out: Path) -> dict[str, Any]:
    """What the items of a file cost a model (`hone eval` shows the mean; here each is wanted)."""
    import hone
    from hone.data.tokenizer import load_tokenizer
    from hone.evaluation.held_out import evaluate_model
    from hone.models.load import load_finished
    from hone.tasks import chosen

    unused = str(out / f"{BASE}.train.jsonl")  # there is always something to train on
    keys = {"train_file": unused, "validation_file": str(file), "template": template, "model_name_or_path": model}
    given = {**COMMON, **keys, "max_length": 512, "output_dir": str(out / "unused")}
    config, task = chosen(hone.load_config(given), None)
    _, items = evaluate_model(
        load_finished(model, task.model), task, load_tokenizer(model), hone.prepare(config).validation, config
    )
    loss = items.metrics["loss"]
    return of_items(loss.numerator, loss.weight)


def of_items(numerator: Sequence[float], weight: Sequence[float] | None) -> dict[str, Any]:
    assert weight
    return {
        "loss": sum(numerator) / sum(weight),
        "nats": [round(value, 3) for value in numerator],
        "tokens": [int(value) for value in weight],
    }


# ---- the table ----------------------------------------------------------------------------------------------------


def results(out: Path) -> list[tuple[Cell, dict[str, Any]]]:
    if not (out / "cells.jsonl").exists():
        return []
    found = []
    for line in (out / "cells.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        found.append((Cell(**{key: row.pop(key) for key in Cell.__dataclass_fields__}), row))
    return found


def write_table(found: list[tuple[Cell, dict[str, Any]]]) -> None:
    """One line for each setting, its seeds together: mean loss, and paired differences with 95 % intervals over items.

    The differences are from the base, from full training of as many rows at FULL, and from LoRA of rank 16 at the same
    rate. `spread` is the standard deviation of the items' differences, from which the smallest visible change follows.
    """
    settings: dict[Cell, BySeed] = {}
    for cell, row in found:
        settings.setdefault(replace(cell, seed=0, extra=""), {})[cell.seed] = row
    bases = {cell.base: rows[0] for cell, rows in settings.items() if cell.method == "base"}
    lines = []
    for cell, rows in sorted(settings.items(), key=lambda pair: astuple(pair[0])):
        if cell.method == "base":
            continue
        best = replace(cell, method="full", size=0, rate=FULL, epochs=EPOCHS[cell.rows])
        usual = replace(cell, size=SIZES["lora"]) if cell.method == "lora" else cell
        losses = [row["loss"] for row in rows.values()]
        line = {key: value for key, value in asdict(cell).items() if key not in ("seed", "extra")}
        line |= {"seeds": len(rows), "loss": mean(losses), "lowest": min(losses), "highest": max(losses)}
        line |= differences("from_base", rows, dict.fromkeys(rows, bases[cell.base]))
        line |= differences("from_full", rows, settings.get(best, {})) if best != cell else {}
        line |= differences("from_16", rows, settings.get(usual, {})) if usual != cell else {}
        for name in ("library", "click"):
            told = {seed: row[name] for seed, row in rows.items() if name in row}
            line |= differences(name, told, dict.fromkeys(told, bases[cell.base].get(name)))
        passed = [row["passed"] for row in rows.values() if "passed" in row]
        line |= {
            "passed": " ".join(map(str, passed)),
            "tests": len(next(iter(rows.values()))["nats"]) if passed else "",
        }
        lines.append({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in line.items()})
    columns = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)


def differences(name: str, rows: BySeed, others: BySeed) -> dict[str, float]:
    """Rows minus others, the seeds that both have averaged item by item: mean and interval.

    The spread is that of one pair of models: means over seeds spread less.
    """
    from hone.statistics.intervals import influence, ratio_interval

    seeds = sorted(rows.keys() & others.keys())
    if not seeds:
        return {}
    pairs = [np.subtract(rows[seed]["nats"], others[seed]["nats"]) for seed in seeds]
    weight = np.array(rows[seeds[0]]["tokens"], float)
    change = ratio_interval(np.mean(pairs, axis=0), weight)
    low, high = change.bounds or (np.nan, np.nan)
    spread = float(np.std(influence(pairs[0], weight), ddof=1))
    return {name: change.value, f"{name}_low": low, f"{name}_high": high, f"{name}_spread": spread}


if __name__ == "__main__":
    main()
