"""A learning rate far from what suits the base is named, with the rate that does; any other is not spoken of."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hone import bundled
from hone.cli import app
from hone.config.explain import recipe_names, recipe_text
from hone.config.load import load_config

OWN = {"model_name_or_path": bundled.NAME}
GPT2 = {"model_name_or_path": "gpt2"}
SCRATCH = {"model_type": "gpt2", "tokenizer_name_or_path": bundled.NAME}


def notices(keys: dict[str, Any]) -> list[str]:
    return [notice for notice in load_config(keys).notices if notice.startswith("learning_rate is ")]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (OWN | {"learning_rate": 1e-6}, "1e-06, so low that little is learned: hone-base takes about 0.001 with"),
        (OWN | {"learning_rate": 1e-4}, "hone-base takes about 0.001 with method: full"),
        (OWN | {"learning_rate": 0.5}, "0.5, so high that training may break the model: hone-base takes about 0.001"),
        (OWN | {"learning_rate": 1e-2}, "may break the model"),
        (OWN | {"method": "freeze", "learning_rate": 3e-4}, "hone-base takes about 0.003 with method: freeze"),
        (OWN | {"method": "lora", "learning_rate": 1e-3}, "hone-base takes about 0.01 with method: lora"),
        (GPT2 | {"learning_rate": 1e-6}, "so low that little is learned: with method: full, 1e-05 to 5e-05 are usual"),
        (GPT2 | {"learning_rate": 5e-4}, "may break the model: with method: full, 1e-05 to 5e-05 are usual"),
        (GPT2 | {"method": "lora", "learning_rate": 2e-3}, "with method: lora, 0.0001 to 0.0002 are usual"),
        (GPT2 | {"task": "seq2seq", "learning_rate": 3e-3}, "with method: full, 3e-05 to 0.0003 are usual"),
        (SCRATCH | {"learning_rate": 1e-5}, "so low that little is learned: from scratch, 0.0003 to 0.0006 are usual"),
        (SCRATCH | {"learning_rate": 0.1}, "may break the model: from scratch"),
    ],
)
def test_a_rate_ten_times_off_is_named_with_what_suits(keys: dict[str, Any], said: str) -> None:
    (notice,) = notices(keys)
    assert said in notice


@pytest.mark.parametrize(
    "keys",
    [
        *(OWN | {"learning_rate": rate} for rate in (2e-4, 1e-3, 5e-3)),
        *(OWN | {"method": "lora", "learning_rate": rate} for rate in (2e-3, 5e-2)),
        *(GPT2 | {"learning_rate": rate} for rate in (2e-6, 5e-5, 4e-4)),
        GPT2 | {"task": "seq2seq", "learning_rate": 1e-3},
        SCRATCH | {"learning_rate": 3e-3},
        OWN | {"optim": "sgd", "learning_rate": 0.1},
        {"learning_rate": 3.0},
    ],
)
def test_other_rates_are_not_spoken_of(keys: dict[str, Any]) -> None:
    assert notices(keys) == []


def test_a_small_base_takes_the_rates_of_the_bundled_one(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/model.safetensors").write_bytes(b"0" * 1000)
    given = {"model_name_or_path": str(tmp_path / "tiny")}
    assert notices(given | {"learning_rate": 1e-3}) == []
    (notice,) = notices(given | {"learning_rate": 5e-5})
    assert "a base as small as tiny takes about 0.001 with method: full" in notice


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_begin_with_a_rate_that_suits(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(recipe_text(name), encoding="utf-8")
    assert not [notice for notice in load_config(tmp_path / "r.yaml").notices if "learning_rate" in notice]


def test_check_says_it_and_a_measurement_does_not(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b c d"}\n' * 3)
    given = [f"train_file={tmp_path}/rows.jsonl", f"model_name_or_path={bundled.NAME}", "learning_rate=1e-6"]
    found = CliRunner().invoke(app, ["check", *given])
    assert found.exit_code == 0 and found.stderr.count("learning_rate is 1e-06") == 1
    (tmp_path / "c.yaml").write_text(f"model_name_or_path: {bundled.NAME}\nlearning_rate: 1e-6\n")
    found = CliRunner().invoke(app, ["eval", str(tmp_path / "none"), str(tmp_path / "c.yaml"), "--text", "x"])
    assert found.exit_code == 1 and "learning_rate" not in found.stderr
