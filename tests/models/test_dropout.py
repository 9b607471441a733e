"""Dropout: found in every architecture, off by default in fine-tuning on a CPU, and saved as the model came."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hone
from hone.models.build import dropout_of
from hone.models.dropout import largest_dropout, set_dropout
from hone.models.kinds import CLASSIFIER, DECODER, ModelKind

WITH = {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2}
KEYS = {
    "gpt2": WITH,
    "llama": {"attention_dropout": 0.2},
    "qwen2": {"attention_dropout": 0.2},
    "opt": {"dropout": 0.2, "attention_dropout": 0.2},
    "gpt_neox": {"hidden_dropout": 0.2, "attention_dropout": 0.2},
}


@pytest.mark.parametrize("architecture", list(KEYS))
def test_without_it_two_passes_agree_with_it_they_differ(architecture: str, tiny_model: Callable[..., Any]) -> None:
    model, ids = tiny_model(architecture, **KEYS[architecture]).train(), torch.arange(1, 30)[None]
    assert largest_dropout(model) == pytest.approx(0.2)

    def passes() -> tuple[Any, Any]:
        with torch.no_grad():
            return model(ids).logits, model(ids).logits

    one, other = passes()
    assert not torch.equal(one, other)
    assert set_dropout(model, 0.0) == pytest.approx(0.2)
    one, other = passes()
    assert torch.equal(one, other) and largest_dropout(model) == 0
    expected = model.eval()(ids).logits
    assert torch.allclose(one, expected, atol=1e-5), "training without dropout is what evaluation computes"
    set_dropout(model.train(), 0.2)
    one, other = passes()
    assert not torch.equal(one, other)


def test_when_it_is_off(tmp_path: Path) -> None:
    def found(kind: ModelKind = DECODER, **keys: Any) -> float | None:
        config = hone.load_config({"use_cpu": True, "train_file": "x.jsonl", **keys})
        return dropout_of(config.model, config.train, kind)

    assert found(model_name_or_path="m") == 0.0
    assert found(model_name_or_path="m", dropout=0.3) == 0.3
    assert found(model_type="gpt2", tokenizer_name_or_path="t") is None
    assert found(CLASSIFIER, model_name_or_path="m") is None


def test_what_is_saved_keeps_the_models_own(
    tmp_path: Path, tiny_model: Callable[..., Any], tokenizer: Any, write_rows: Callable[..., Path]
) -> None:
    tiny_model("gpt2", **WITH).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    keys = {
        "model_name_or_path": str(tmp_path / "base"),
        "train_file": str(write_rows("rows.jsonl", [{"text": f"def f{i}(): return {i}"} for i in range(12)])),
        "max_steps": 1,
        "max_length": 64,
        "sample_prompts": 0,
        "use_cpu": True,
    }
    run = hone.train(hone.load_config({**keys, "output_dir": str(tmp_path / "run")}))
    assert json.loads((run.folder / "config.json").read_text())["resid_pdrop"] == 0.2
    assert "dropout: none (the model comes with 0.2" in (run.folder / "train.log").read_text()
    kept = hone.train(hone.load_config({**keys, "dropout": 0.2, "output_dir": str(tmp_path / "kept")}))
    assert "dropout: none" not in (kept.folder / "train.log").read_text()
