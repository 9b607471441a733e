"""benchmarks/same_results.py: a number has one name, whatever the form of its file; and a checkout equals itself."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conftest import load_script

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "same_results.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


@pytest.mark.parametrize(
    ("name", "flat", "typed"),
    [
        (
            "base.json",
            {"loss": 3.0, "loss_interval": [2, 4], "generation_quality": {"n_texts": 2, "words": 5}, "seconds": 1},
            {"metrics": {"loss": {"value": 3.0, "low": 2, "high": 4, "kind": {"top": 1}}}, "n_texts": 2,
             "quality": {"words": {"value": 5}}, "version": 1},
        ),
        (
            "base.items.json",
            {"kind": "row", "nll": [1.5], "n_tokens": [3], "written": {"rouge_l": [0.5]}},
            {"metrics": {"loss": {"numerator": [1.5], "weight": [3]}, "rouge_l": {"numerator": [0.5]}}},
        ),
        ("tuned.items.json", {"true": [1, 2], "predicted": [1, 1]}, {"metrics": {"accuracy": {"numerator": [1, 0]}}}),
        (
            "compare.json",
            {"p_value": 0.1, "loss_p_value": 0.1, "loss_detectable": 2, "metrics": {"loss": {"mde": 2}}},
            {"metrics": {"loss": {"p_value": 0.1, "minimum_detectable_effect": 2}}},
        ),
        (
            "compare.code.json",
            {"pass_difference": 0.5, "pass_difference_interval": [0, 1], "only_tuned_better": 4, "p_value": 0.2},
            {"metrics": {"passed": {"difference": {"value": 0.5, "low": 0, "high": 1}, "only_b": 4, "p_value": 0.2}}},
        ),
    ],
)  # fmt: skip
def test_both_forms_have_the_same_names(
    name: str, flat: dict[str, object], typed: dict[str, object], script: ModuleType, tmp_path: Path
) -> None:
    found = []
    for form in (flat, typed):
        (tmp_path / name).write_text(json.dumps(form), encoding="utf-8")
        found.append(script.numbers(tmp_path / name))
    assert found[0] == found[1] and found[0]


def test_a_difference_is_named_with_its_size(script: ModuleType) -> None:
    found = script.differences({"loss": 1.0, "p": 2, "same": 3}, {"loss": 1.5, "same": 3, "new": 4})
    assert found == {"loss": "1 -> 1.5 (+5.0e-01)", "p": "missing"}


@pytest.mark.slow
def test_a_checkout_has_the_same_results_as_itself(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(ROOT), str(ROOT), "--only", "packed"])
    code, said = script.main(), capsys.readouterr()
    assert code == 0, said.out + said.err
    assert "run/eval/tuned.json" in said.out and "the same: 1 cases" in said.out
