"""What puts the trained base model into the package: heads nobody picked, and a card with the figures of its runs."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import BASE_MODEL, load_script


@pytest.fixture(scope="module")
def ship() -> ModuleType:
    return load_script(BASE_MODEL / "base_ship.py")


@pytest.mark.parametrize(("n_items", "n", "wanted"), [(10, 10, list(range(10))), (100, 4, [12, 37, 62, 87])])
def test_heads_are_evenly_spaced(ship: ModuleType, n_items: int, n: int, wanted: list[int]) -> None:
    assert list(ship.evenly(list(range(n_items)), n)) == wanted


def test_a_head_ends_with_its_docstring(ship: ModuleType, write_rows: Callable[..., Path]) -> None:
    source = 'def bare(x):\n    return x\n\ndef told(x):\n    """What.\n\n    More.\n    """\n    return x\n'
    only_told = '\ndef empty():\n    "Nothing."\n\ndef long(x):\n    """' + "a" * 600 + '"""\n    return x\n'
    path = write_rows("held_out.jsonl", [{"package": "p", "path": "p/a.py", "text": source + only_told}])
    (head,) = ship.held_out_heads(path)
    assert head.place == "p, p/a.py" and head.text == 'def told(x):\n    """What.\n\n    More.\n    """'


@pytest.mark.slow
def test_the_card_tells_what_two_runs_did(
    ship: ModuleType,
    tmp_path: Path,
    tokenizer: Any,
    write_rows: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    import hone

    def function(i: int) -> str:
        return f'def add_{i}(a):\n    """Add {i}."""\n    return a + {i}\n'

    rows = [{"package": "p", "path": f"p/{i}.py", "text": function(i)} for i in range(12)]
    train, held_out = write_rows("train.jsonl", [{"text": function(99)}] * 3), write_rows("held_out.jsonl", rows)
    (tmp_path / "corpus.md").write_text("| p 1.0 | MIT |\n", encoding="utf-8")
    (tmp_path / "bits.md").write_text("| xz -9e | 2.1 |\n", encoding="utf-8")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 256}
    data = {"train_file": str(train), "validation_file": str(held_out), "max_length": 128, "max_steps": 2}
    both = data | {"eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1}
    first = {"model_type": "gpt2", "config_overrides": shape, "tokenizer_name_or_path": str(tmp_path / "tokenizer")}
    run = hone.train(hone.load_config(both | first | {"output_dir": str(tmp_path / "run")}))
    last = {"model_name_or_path": str(run.folder), "output_dir": str(tmp_path / "last")}
    finished = hone.train(hone.load_config(both | last))

    out = tmp_path / "shipped"
    arguments = ["base_ship.py", "--corpus", str(tmp_path), "--bits", str(tmp_path / "bits.md"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    ship.main()
    assert "wrote" in capsys.readouterr().out
    shipped = AutoModelForCausalLM.from_pretrained(out)
    assert shipped.dtype == torch.bfloat16
    trained = AutoModelForCausalLM.from_pretrained(finished.folder, dtype=torch.bfloat16)
    for name, weight in trained.state_dict().items():
        assert torch.equal(shipped.state_dict()[name], weight), name

    card = (out / "README.md").read_text(encoding="utf-8")
    tokens = sum(max(line["tokens"] for line in each.metric_lines() if "tokens" in line) for each in (run, finished))
    assert f"{tokens:,} tokens in " in card and f"{shipped.num_parameters():,} weights" in card
    for wanted in ("| p 1.0 | MIT |", "| xz -9e | 2.1 |", "`p, p/0.py`", "def add_0(a):\n"):
        assert wanted in card, wanted
    curve = card.split("| ---: | ---: |\n")[1].split("\n\n")[0].splitlines()
    assert finished.tuned
    assert len(curve) == 4, "two evaluations of each run"
    assert math.isclose(float(curve[-1].split("|")[2]), finished.tuned.value("bits_per_byte"), abs_tol=1e-3)
