"""`hone plan` of several processes: the steps that they will take, what each holds, what all of a machine need."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hone
from hone.planning.plan import Plan, make_plan
from hone.tables.plan import plan_text
from tiny_tasks import QUIET, pair_rows


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> dict[str, Plan]:
    """Of a tiny GPT-2 on 40 rows: alone, and by several processes whose steps are as large."""
    folder = tmp_path_factory.mktemp("plans")
    given = {
        **QUIET,
        "bf16": False,
        "model_name_or_path": str(model_folder),
        "train_file": str(write(folder / "rows.jsonl")),
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "token_cache_dir": str(folder / "tokens"),
    }
    kinds: dict[str, dict[str, Any]] = {
        "alone": {"gradient_accumulation_steps": 6, "sharding": "fsdp2"},
        "three": {"nproc_per_node": 3},
        "cut": {"nproc_per_node": 3, "sharding": "fsdp2"},
    }
    return {name: make_plan(hone.load_config({**given, **settings})) for name, settings in kinds.items()}


def write(path: Path) -> Path:
    import json

    rows = [{"prompt": row["source"], "completion": row["target"]} for row in pair_rows(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_steps_are_those_of_one_process_that_accumulates_as_much(plans: dict[str, Plan]) -> None:
    assert plans["three"].schedule == plans["cut"].schedule == plans["alone"].schedule


def test_processes_on_a_processor_share_its_memory(plans: dict[str, Plan]) -> None:
    one, three = plans["alone"].memory, plans["three"].memory
    assert (three.weights, three.optimizer) == (one.weights, one.optimizer), "each holds all of it"
    assert three.total >= one.total and three.needed == 3 * three.total + 2 * three.process
    assert three.sent == 4 * one.trained // 3, "2 (W - 1) / W times the gradients, in float32"
    assert not replace(three, free=three.needed - 1).fits and replace(three, free=three.needed - 1, on_cpu=False).fits
    text = plan_text(plans["three"])
    assert "3 processes, 3 on this machine, which share its memory" in text and "each sends" in text
    assert "process" not in plan_text(plans["alone"])


def test_of_shards_each_holds_a_part(plans: dict[str, Plan]) -> None:
    whole, cut, alone = plans["three"], plans["cut"], plans["alone"]
    assert cut.memory.weights == -(-whole.memory.weights // 3) and cut.memory.copied == whole.memory.weights
    assert cut.memory.gathered > 0 and cut.disk.total == whole.disk.total, "what is saved is whole"
    assert any("a shard is not the whole output layer" in note for note in cut.accelerations)
    assert alone.memory.copied == 0, "one process holds everything in any case"
    assert "keeps a whole copy" in plan_text(cut)
