"""Every recipe, made tiny: what `hone plan` says of the accelerations is what `hone train` does and logs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hone
from conftest import pairs
from hone.accelerations.attach import NOT_COMPARED
from hone.config.explain import recipe_names, recipe_text
from hone.planning.plan import make_plan
from hone.tasks import task_of
from tiny_tasks import T5, bert_tokenizer, labelled_rows, pair_rows

SMALL = {
    "use_cpu": True,
    "max_length": 48,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "validation_split_percentage": 0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "eval_base": False,
    "sample_prompts": 0,
}
FLAT = ("freed memory kept for the next step", "variable-length attention", "logits of scored positions only")
FUSED = "fused cross-entropy"
CACHED = "frozen cache: the 1 frozen blocks run once for each token"
# recipe -> what must be among its accelerations
EXPECTED: dict[str, tuple[str, ...]] = {
    "book": ("logits of scored positions only", FUSED, "2 fused GELUs"),
    "classify": ("freed memory kept for the next step",),
    "code-from-scratch": ("logits of scored positions only", FUSED),
    "instruct-gpt2": (*FLAT, FUSED, CACHED),
    "light-lab": (*FLAT, FUSED, "2 fused GELUs"),
    "qwen2-lora-cpu": (*FLAT, FUSED, "micro-batches cut into pieces of 256 tokens"),
    "qwen2-lora-gpu": (*FLAT, FUSED),
    "summarize-code": ("freed memory kept for the next step",),
}


@pytest.fixture
def tiny(tmp_path: Path, tiny_model: Any, tokenizer: Any, write_rows: Any) -> Callable[[str], Any]:
    """tiny("book") -> the config of that recipe with a tiny local model and a few rows."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = [{"text": f"def f{i}(x):\n    return x + {i}\n" * (3 + i % 3)} for i in range(12)]
    rows = {
        "classify": labelled_rows(12),
        "summarize-code": [{"code": row["source"], "summary": row["target"]} for row in pair_rows(12)],
        "light-lab": texts,
        "code-from-scratch": texts,
    }

    def model(name: str) -> Path:
        folder = tmp_path / "model"
        if name == "classify":
            from transformers import DistilBertConfig, DistilBertForMaskedLM

            words = bert_tokenizer([word for row in rows[name] for word in row["text"].split()])
            about = DistilBertConfig(vocab_size=len(words), dim=32, hidden_dim=64, n_layers=2, n_heads=2)
            DistilBertForMaskedLM(about).save_pretrained(folder)
            words.save_pretrained(folder)
            return folder
        if name == "summarize-code":
            from transformers import T5Config, T5ForConditionalGeneration

            T5ForConditionalGeneration(
                T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **T5)
            ).save_pretrained(folder)
        else:
            tiny_model("qwen2" if name.startswith("qwen2") else "gpt2").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    def config(name: str) -> Any:
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(recipe_text(name), encoding="utf-8")
        settings = {**SMALL, "output_dir": str(tmp_path / "run")}
        settings["train_file"] = str(write_rows("rows.jsonl", rows.get(name, pairs(12))))
        for key in ("dataset_name", "validation_file", "offline_model_name_or_path", "num_unfrozen_layers"):
            if f"{key}:" in recipe.read_text():
                settings[key] = 1 if key == "num_unfrozen_layers" else None
        if name == "book":
            settings["train_file"] = str(tmp_path / "book.txt")
            Path(settings["train_file"]).write_text("".join(row["text"] for row in texts), encoding="utf-8")
        if name == "code-from-scratch":
            settings |= {"tokenizer_name_or_path": str(tmp_path / "tokenizer"), "max_length": 32}
            settings["config_overrides"] = {"n_positions": 32, "n_layer": 2, "n_head": 2, "n_embd": 32}
        else:
            settings["model_name_or_path"] = str(model(name))
        return hone.load_config(recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()])

    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_plan_and_train_say_the_same_of_accelerations(name: str, tiny: Callable[[str], Any]) -> None:
    config = tiny(name)
    planned = make_plan(config)
    assert json.loads(json.dumps(planned.as_dict()))["accelerations"] == planned.accelerations
    run = hone.train(config)
    lines = [
        line.partition("accelerations: ")[2]
        for line in (run.folder / "train.log").read_text().splitlines()
        if "accelerations: " in line
    ]
    assert lines and max(map(len, lines)) <= 100
    logged = " ".join(lines)
    compared = [note for note in planned.accelerations if note != NOT_COMPARED]
    assert "; ".join(compared) == logged
    assert set(EXPECTED[name]) <= set(compared), logged
    assert (NOT_COMPARED in planned.accelerations) is task_of(config).token_rows
    assert "no " not in logged, "nothing steps aside in a recipe"
