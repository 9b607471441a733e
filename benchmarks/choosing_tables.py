"""The tables of docs/choosing.md and of the memory ladder, made from the committed measurements.

Each stands in its page between `<!-- table: NAME -->` and `<!-- end -->`; a test makes them again and compares.

    python benchmarks/choosing_tables.py          # after a new measurement: puts them into the pages
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "docs" / "choosing.md", ROOT / "docs" / "troubleshooting.md")
BASE, STORIES = "hone-base", "stories260K"
METHODS = {"full": "full", "freeze": "freeze, top 2", "lora": "LoRA, rank 16"}
SIZES = {"full": 0, "freeze": 2, "lora": 16}
RATES = {
    "full": (5e-5, 3e-4, 1e-3, 3e-3),
    "freeze": (2e-4, 1e-3, 3e-3, 1e-2),
    "lora": (2e-4, 1e-3, 3e-3, 1e-2),
}
ROWS = ((8, 5), (60, 3), (400, 2))  # and epochs
RANKS = (4, 16, 64)
EPOCHS = ((60, (1, 2, 3, 5, 8)), (400, (1, 2, 4)))
ITEMS = (6, 10, 25, 50, 100, 200, 500, 1000)
Line = dict[str, str]


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """The page's text with each of its tables made again."""
    pattern = r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text, flags=re.S)


def measured() -> list[Line]:
    with (FIGURES / "choosing.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def chosen(**wanted: Any) -> list[Line]:
    """The lines with these values; numbers are compared as numbers."""
    return [line for line in measured() if all(same(line[key], value) for key, value in wanted.items())]


def same(text: str, value: Any) -> bool:
    return text == value if isinstance(value, str) else float(text) == value


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is words, the others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(line: Line, name: str = "from_base", digits: int = 2) -> str:
    """-1.25 [-1.41, -1.08], with the sign that a reader expects."""
    if not line[name]:
        return ""
    value, low, high = (f"{float(line[key]):+.{digits}f}" for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {high}]".replace("-", "−")


def rate(text: str) -> str:
    """5e-05 as in a config: 5e-5."""
    return f"{float(text):.0e}".replace("e-0", "e-")


# ---- docs/choosing.md ---------------------------------------------------------------------------------------------


def methods() -> str:
    """Four epochs of 400 rows: what was learned, what passes, and what was forgotten."""
    rows = []
    for line in sorted(chosen(base=BASE, rows=400, epochs=4), key=lambda one: float(one["loss"])):
        cells = [interval(line, name) for name in ("from_base", "library", "click")]
        passed = f"{', '.join(line['passed'].split())} of {line['tests']}"
        rows.append([f"{METHODS[line['method']]}, {rate(line['rate'])}", cells[0], passed, *cells[1:]])
    return markdown(["method, rate", "functions: loss", "pass", "standard library: loss", "click: loss"], rows)


def method_costs() -> str:
    """Memory and processor time of the methods, from the ladder's second shape."""
    told = [one for one in json.loads((FIGURES / "memory-ladder.json").read_text("utf-8")) if "82M" in one["shape"]]
    names = {"none": "full", "method=freeze": "freeze, top 2 of 6", "method=lora": "LoRA, rank 16"}
    names |= {"method=lora dtype=bfloat16": "LoRA, rank 16, `dtype: bfloat16`"}
    (first,) = (one for one in told if one["rung"] == "none")
    rows = [
        [names[one["rung"]], f"{one['measured_mb']:,} MB", f"{one['cpu_s'] / first['cpu_s']:.2f}"]
        for one in told
        if one["rung"] in names
    ]
    return markdown(["method", "memory", "processor time of the whole run"], rows)


def rates() -> str:
    """hone-base: the gain of each method at each rate, by number of rows."""
    rows = []
    for method, title in METHODS.items():
        for value in RATES[method]:
            of_it = [
                chosen(base=BASE, method=method, size=SIZES[method], rate=value, rows=n, epochs=k) for n, k in ROWS
            ]
            cells = [change(found[0]) if found else "" for found in of_it]
            rows.append([f"{title}: {rate(str(value))}", *cells])
    return markdown(["method: rate", *(f"{n} rows, {k} epochs" for n, k in ROWS)], rows)


def other_rates() -> str:
    """stories260K: held-out loss alone, a method and number of rows a line."""
    values = sorted({value for of_method in RATES.values() for value in of_method})
    rows = []
    for method, title in METHODS.items():
        for n, k in ROWS:
            lines = chosen(base=STORIES, method=method, size=SIZES[method], rows=n, epochs=k)
            told = {float(line["rate"]): loss(line) for line in lines}
            if len(told) > 2:
                rows.append([f"{title}, {n} rows, {k} epochs", *(told.get(value, "") for value in values)])
    return markdown(["rate", *(rate(str(value)) for value in values)], rows)


def ranks() -> str:
    """hone-base: the gain of each rank at each rate, by number of rows."""
    return of_ranks(RANKS, "from_base")


def rank_differences() -> str:
    """Each rank against 16, at the same rate and on the same rows."""
    return of_ranks([rank for rank in RANKS if rank != SIZES["lora"]], "from_16")


def of_ranks(sizes: Sequence[int], name: str) -> str:
    rows = []
    for value in RATES["lora"][1:]:
        for size in sizes:
            of_it = [chosen(base=BASE, method="lora", size=size, rate=value, rows=n, epochs=k)[:1] for n, k in ROWS]
            rows.append(
                [
                    f"{rate(str(value))}, rank {size}",
                    *("".join(change(line, name) for line in found) for found in of_it),
                ]
            )
    return markdown(["rate, rank", *(f"{n} rows, {k} epochs" for n, k in ROWS)], rows)


def change(line: Line, name: str = "from_base") -> str:
    return interval(line, name) + seeds(line)


def epochs() -> str:
    """How far full training at 1e-3 gets in so many epochs."""
    rows = []
    for n, numbers in EPOCHS:
        for k in numbers:
            for line in chosen(base=BASE, method="full", rate=1e-3, rows=n, epochs=k):
                rows.append([f"{n} rows, {k}", f"{float(line['loss']):.3f}", change(line)])
    return markdown(["rows, epochs", "loss", "change from the base"], rows)


def seeds(line: Line) -> str:
    """Marks what one seed alone says."""
    return " ¹" if line["seeds"] == "1" else ""


def loss(line: Line) -> str:
    return f"{float(line['loss']):.2f}"


def amounts() -> str:
    """How far full training at 1e-3 gets with so many rows."""
    rows = []
    for n, k in (*ROWS, (400, 4)):
        for line in chosen(base=BASE, method="full", rate=1e-3, rows=n, epochs=k):
            rows.append([f"{n} rows, {k} epochs", f"{float(line['loss']):.3f}", change(line)])
    return markdown(["trained on", "loss", "change from the base"], rows)


def visible() -> str:
    """The smallest change that n held-out items show 8 times in 10, at the spreads measured here."""
    from hone.statistics.intervals import minimum_detectable_mean

    (whole,) = chosen(base=BASE, method="full", rate=1e-3, rows=400, epochs=4)
    (two,) = chosen(base=BASE, method="lora", size=16, rate=1e-2, rows=400, epochs=2)
    spreads = [float(whole["from_base_spread"]), float(two["from_full_spread"])]
    rows = [[f"{n:,}", *(f"{minimum_detectable_mean(one, n):.2f}" for one in spreads)] for n in ITEMS]
    return markdown(
        ["held-out rows", f"tuned and base (spread {spreads[0]:.2f})", f"two tuned models ({spreads[1]:.2f})"], rows
    )


def classes() -> str:
    told = json.loads((FIGURES / "choosing-classes.json").read_text("utf-8"))
    even = [one for one in told if one["kind"] == "even"]
    rows = []
    for n in sorted({one["a_class"] for one in even}):
        of_n = [one for one in even if one["a_class"] == n]
        told_by = [sorted({f"{one[key]:.3f}" for one in of_n}) for key in ("accuracy", "baseline")]
        spans = [" to ".join(dict.fromkeys((values[0], values[-1]))) for values in told_by]
        rows.append([f"{n:,} ({of_n[0]['epochs']} epochs)", *spans])
    return markdown(["rows a class", "stories260K, full, 1e-3", "logistic regression"], rows)


def thresholds() -> str:
    told = json.loads((FIGURES / "choosing-classes.json").read_text("utf-8"))
    rows = []
    for weights in ("none", "balanced"):
        for threshold in sorted({one["threshold"] for one in told if one["kind"] == "uneven"}, reverse=True):
            of_it = [one for one in told if one.get("weights") == weights and one["threshold"] == threshold]
            cells = [f"{mean(one[key] or 0 for one in of_it):.2f}" for key in ("accuracy", "recall", "precision")]
            rows.append([f"`class_weights: {weights}`, {threshold}", *cells])
    return markdown(["weights, threshold", "accuracy", "recall of the rare", "precision"], rows)


# ---- docs/troubleshooting.md --------------------------------------------------------------------------------------


def ladder() -> str:
    told = json.loads((FIGURES / "memory-ladder.json").read_text("utf-8"))
    shapes = list(dict.fromkeys(one["shape"] for one in told))
    rows = []
    for rung in dict.fromkeys(one["rung"] for one in told):
        cells = []
        for shape in shapes:
            (first,) = (one for one in told if one["shape"] == shape and one["rung"] == "none")
            found = [one for one in told if one["shape"] == shape and one["rung"] == rung]
            cells += (
                [f"{found[0]['measured_mb']:,}", f"{found[0]['cpu_s'] / first['cpu_s']:.2f}"] if found else ["", ""]
            )
        rows.append([rung if " " in rung and "=" not in rung else ("none" if rung == "none" else f"`{rung}`"), *cells])
    return markdown(["settings", *(cell for shape in shapes for cell in (f"{shape}: MB", "time ×"))], rows)


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "method-costs": method_costs,
    "rates": rates,
    "rates-stories": other_rates,
    "ranks": ranks,
    "rank-differences": rank_differences,
    "epochs": epochs,
    "amounts": amounts,
    "visible": visible,
    "classes": classes,
    "thresholds": thresholds,
    "ladder": ladder,
}

if __name__ == "__main__":
    main()
