"""docs/choosing.md: its tables and figure are the committed measurements, and its sentences agree with them."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_pages import DOCS, ROOT

from hone.bundled import RATES
from hone.config.fields import docs_of
from hone.config.rates import ENCODER_DECODERS, FROM_SCRATCH, USUAL
from hone.config.schema import leaf_field

sys.path.append(str(ROOT / "benchmarks"))
import choosing
import choosing_tables


@pytest.mark.parametrize("page", choosing_tables.PAGES, ids=lambda page: page.name)
def test_tables_are_made_of_the_measurements(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert choosing_tables.filled(text) == text, "python benchmarks/choosing_tables.py"


def test_every_table_stands_in_a_page() -> None:
    pages = [page.read_text(encoding="utf-8") for page in choosing_tables.PAGES]
    found = [name for text in pages for name in re.findall(r"<!-- table: ([\w-]+) -->", text)]
    assert sorted(found) == sorted(choosing_tables.TABLES)


def test_the_figure_is_drawn_from_them() -> None:
    done = subprocess.run(
        [sys.executable, "docs/figures/choosing.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (DOCS / "figures" / "choosing.svg").read_text(encoding="utf-8")


def test_plans_near_the_measured_peaks() -> None:
    """What troubleshooting.md says of `hone plan` beside the ladder."""
    told = json.loads((DOCS / "figures" / "memory-ladder.json").read_text("utf-8"))
    near = [one for one in told if abs(one["planned_mb"] / one["measured_mb"] - 1) <= 0.2]
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    assert f"Of these {len(told)} trainings it foretold {len(near)} to a fifth" in text


@pytest.mark.parametrize("method", ["full", "freeze", "lora"])
def test_too_low_a_rate_costs_most_of_the_gain(method: str) -> None:
    """Of 60 rows the lowest rate of each method gains less than half of what its best one does."""
    lines = choosing_tables.chosen(base="hone-base", method=method, size=choosing.SIZES[method], rows=60, epochs=3)
    gains = {float(line["rate"]): float(line["from_base"]) for line in lines}
    assert gains[min(gains)] > min(gains.values()) / 2


def test_what_the_reference_says_of_low_rates() -> None:
    """`hone explain learning_rate`: of 60 rows a third of the gain, with LoRA a sixth."""
    said = str(docs_of(leaf_field("learning_rate"))["tradeoff"])
    assert "5e-5 gives hone-base a third of what its best rate gains, and 2e-4 with lora a sixth" in " ".join(
        said.split()
    )
    for method, low, parts in (("full", 5e-5, 3), ("lora", 2e-4, 6)):
        size = choosing.SIZES[method]
        lines = choosing_tables.chosen(base="hone-base", method=method, size=size, rows=60, epochs=3)
        gains = {float(line["rate"]): float(line["from_base"]) for line in lines}
        assert round(min(gains.values()) / gains[low]) == parts


def test_where_to_begin_is_what_check_advises() -> None:
    text = (DOCS / "choosing.md").read_text(encoding="utf-8").split("### Where to begin")[1].split("\n\n")[1]
    said = [re.findall(r"\d[\d.]*e-\d", line) for line in text.splitlines()[2:]]
    others = [rate for span in USUAL.values() for rate in span]
    seq2seq = [*ENCODER_DECODERS, *others[2:]]
    assert [[float(rate) for rate in line] for line in said] == [
        *(list(RATES.values()), others, seq2seq, list(FROM_SCRATCH))
    ]


def test_four_times_the_rank_takes_a_third_of_the_rate() -> None:
    """The three gain the same to a tenth of a nat; at one rate rank 4 and 64 differ by more than that."""
    for rows, epochs in ((8, 5), (60, 3), (400, 2)):
        wanted = {"base": "hone-base", "method": "lora", "rows": rows, "epochs": epochs}

        def gain(size: int, rate: float, wanted: dict[str, object] = wanted) -> float:
            (line,) = choosing_tables.chosen(**wanted, size=size, rate=rate)
            return float(line["from_base"])

        gains = [gain(64, 1e-3), gain(16, 3e-3), gain(4, 1e-2)]
        assert max(gains) - min(gains) < 0.1
        assert gain(4, 1e-3) - gain(64, 1e-3) > 0.2
        best = {size: min(gain(size, rate) for rate in (1e-3, 3e-3, 1e-2)) for size in (4, 16, 64)}
        assert abs(best[16] - best[64]) < 0.03 < 0.05 < best[4] - best[16] or rows == 8


def test_a_cell_is_trained_once() -> None:
    cells = list(choosing.grid())
    assert len(cells) == len(set(cells))


def test_differences_pair_the_seeds_that_both_have() -> None:
    """Of rows trained with seeds 0 and 1, beside others with 1 and 2, only seed 1 counts."""
    tokens = [10, 20, 30, 40, 50, 60]
    rows, others = (
        {seed: {"nats": [(level + seed * own) * n for n in tokens], "tokens": tokens} for seed in seeds}
        for level, own, seeds in ((1.0, 3.0, (0, 1)), (2.0, 7.0, (1, 2)))
    )
    found = choosing.differences("from_16", rows, others)
    assert found["from_16"] == pytest.approx((1 + 3) - (2 + 7))
    assert choosing.differences("from_16", rows, {2: others[2]}) == {}


def test_a_table_of_two_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds are averaged item by item; the difference is the ratio of sums of nats and of tokens."""
    chance = np.random.default_rng(0)
    tokens = [10, 20, 30, 40, 50, 60]
    base = chance.normal(2, 0.1, 6) * tokens
    told = [("base", 0, 0.0, base), ("full", 0, 1e-3, base - tokens), ("full", 1, 1e-3, base - 2 * np.array(tokens))]
    with (tmp_path / "cells.jsonl").open("w", encoding="utf-8") as file:
        for method, seed, rate, nats in told:
            cell = choosing.Cell("hone-base", method, 0, rate, 0 if method == "base" else 60, 3, seed)
            row = {"loss": sum(nats) / sum(tokens), "nats": list(nats), "tokens": tokens}
            file.write(json.dumps({**vars(cell), **row}) + "\n")
    choosing.write_table(choosing.results(tmp_path))
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert line["seeds"] == "2"
    assert float(line["from_base"]) == pytest.approx(-1.5, abs=1e-3)
    assert float(line["from_base_spread"]) == pytest.approx(0, abs=1e-6)
    assert float(line["highest"]) - float(line["lowest"]) == pytest.approx(1, abs=1e-2)
