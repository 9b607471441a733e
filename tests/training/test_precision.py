"""`bf16: null`: decided by a measurement, which is kept, and never against what was asked for."""

from pathlib import Path
from typing import Any

import pytest

from hone.accelerations import precision
from hone.accelerations.precision import bf16_pays, resolve_precision
from hone.config.load import load_config


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the measurement will find, in GFLOP/s; `measured` counts how often it is asked."""
    found = {"bfloat16": 400.0, "float32": 200.0, "measured": 0.0}

    def rate(dtypes: list[Any], device: str, n: int) -> list[float]:
        found["measured"] += 1
        return [found[str(dtype).removeprefix("torch.")] for dtype in dtypes]

    monkeypatch.setattr(precision, "best_gflops", rate)
    monkeypatch.setattr(precision, "bf16_pays", bf16_pays)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return found


@pytest.mark.parametrize(("bfloat16", "pays"), [(400.0, True), (249.0, False), (1.0, False)])
def test_it_pays_where_it_is_a_quarter_faster(
    bfloat16: float, pays: bool, rates: dict[str, float], tmp_path: Path
) -> None:
    rates["bfloat16"] = bfloat16
    assert bf16_pays("cpu", tmp_path) is pays
    rates["bfloat16"] = 0.0 if pays else 1e6
    assert bf16_pays("cpu", tmp_path) is pays, "the measurement of before is used"
    assert rates["measured"] == 1


@pytest.mark.parametrize("kept", ["", "{}", '{"about": {"torch": "0.1"}, "bf16_pays": false}', "[1]"])
def test_a_measurement_of_another_machine_or_a_broken_one_is_made_anew(
    kept: str, rates: dict[str, float], tmp_path: Path
) -> None:
    (tmp_path / "precision-cpu.json").write_text(kept)
    assert bf16_pays("cpu", tmp_path) is True


def test_a_folder_that_cannot_be_written_is_no_error(rates: dict[str, float], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert bf16_pays("cpu", tmp_path / "file" / "below") is True


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, True),
        ({"bf16": False}, False),
        ({"bf16": True}, True),
        ({"dtype": "bfloat16"}, False),  # the weights are that already: nothing to convert
    ],
)
def test_null_gives_way_to_what_was_asked(
    given: dict[str, Any], want: bool, rates: dict[str, float], tmp_path: Path
) -> None:
    config = load_config({"model_name_or_path": "m", "train_file": "f", "use_cpu": True, **given})
    assert config.train.bf16 == given.get("bf16")
    assert resolve_precision(config, tmp_path).train.bf16 is want
