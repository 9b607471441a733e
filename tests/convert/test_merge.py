"""Merging: the folder loads without PEFT and answers as base and adapter do, or there is no folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone.cli import app
from hone.convert import merge as merging
from hone.convert.merge import TOLERANCE, merge
from hone.errors import HoneError

IDS = torch.arange(1, 40)[None]


@pytest.fixture(scope="module")
def adapter_run(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A LoRA run of a few steps at a high rate, so that the adapter matters."""
    folder = tmp_path_factory.mktemp("adapter")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs(20)))
    return train_lora(folder / "run", model_folder, rows)


def train_lora(out: Path, base: Path, rows: Path, **settings: Any) -> Path:
    run = hone.train(
        hone.load_config(
            {
                "model_name_or_path": str(base),
                "train_file": str(rows),
                "max_length": 64,
                "method": "lora",
                "lora_r": 4,
                "learning_rate": 2e-2,
                "max_steps": 5,
                "save_strategy": "no",
                "sample_prompts": 0,
                "output_dir": str(out),
                **settings,
            }
        )
    )
    return run.folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


def merged(source: Path, target: Path, **options: Any) -> Any:
    return merge(str(source), target, hone.load(source)[1], **options)


def spoiled_copy(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a model folder with other weights."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_merged_model_is_plain_and_answers_the_same(tmp_path: Path, adapter_run: Path, model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = merged(adapter_run, tmp_path / "merged")
    assert result.dtype == "float32"
    assert result.difference <= 1e-4
    assert result.base_checked
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "template.json", "README.md"} <= names
    assert not any("adapter" in name for name in names)
    assert (tmp_path / "merged" / "model.safetensors").stat().st_mode == (
        tmp_path / "merged" / "README.md"
    ).stat().st_mode
    assert (adapter_run / "adapter_model.safetensors").stat().st_mode == (adapter_run / "README.md").stat().st_mode
    assert not list(tmp_path.glob(".*"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    assert not any("lora" in name for name, _ in theirs.named_parameters())
    expected, base = logits(hone.load(adapter_run)[0]), logits(hone.load(model_folder)[0])
    assert (logits(theirs) - expected).abs().max() <= 1e-4 * expected.std()
    assert (expected - base).abs().max() > 0.05 * expected.std(), "the adapter must matter"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer("def add").input_ids == hone.load(adapter_run)[1]("def add").input_ids
    assert json.loads((tmp_path / "merged" / "template.json").read_text()) == {"template": "plain"}
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert f"{result.difference:.1e}" in card
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer" in card and "name = 'merged'" in card
    assert "| tuned |" in card and "report.md" not in card and "peft" not in card.lower()
    assert hone.generate(tmp_path / "merged", "add 3", max_new_tokens=5) == hone.generate(
        adapter_run, "add 3", max_new_tokens=5
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_16_bit_base_is_summed_in_float32_and_saved_in_its_dtype(
    dtype: str, tmp_path: Path, tiny_model: Any, tokenizer: Any, write_rows: Any
) -> None:
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    tiny_model("llama").to(getattr(torch, dtype)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    run = train_lora(tmp_path / "run", base, write_rows("rows.jsonl", pairs(20)), eval_base=False)
    result = merged(run, tmp_path / "merged")
    assert result.dtype == dtype
    assert 1e-4 < result.difference <= TOLERANCE[dtype], "rounding shows, and stays within what is allowed"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == getattr(torch, dtype)
    exact = merged(run, tmp_path / "exact", dtype="float32")
    assert exact.difference <= 1e-4


def test_a_head_trained_whole_parts_from_the_embeddings(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    """GPT-2's head and embeddings are one tensor; the adapter holds a trained copy of the head."""
    rows = write_rows("rows.jsonl", pairs(20))
    run = train_lora(tmp_path / "run", model_folder, rows, lora_modules_to_save=["lm_head"])
    assert merged(run, tmp_path / "merged").difference <= 1e-4
    model, _ = hone.load(tmp_path / "merged")
    assert model.config.tie_word_embeddings is False
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)
    assert torch.equal(model.transformer.wte.weight, hone.load(model_folder)[0].transformer.wte.weight)


def test_a_checkpoint_of_a_run_merges_and_brings_the_template(
    tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    rows = write_rows("rows.jsonl", pairs(20))
    run = train_lora(tmp_path / "run", model_folder, rows, save_strategy="steps", save_steps=5)
    result = merged(run / "checkpoint-5", tmp_path / "merged")
    assert result.base_checked
    assert json.loads((tmp_path / "merged" / "template.json").read_text()) == {"template": "plain"}


def test_another_base_of_the_same_shape_is_refused(tmp_path: Path, adapter_run: Path, model_folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["transformer.h.0.attn.c_attn.weight"] += 0.01

    other = spoiled_copy(model_folder, tmp_path / "other", change)
    with pytest.raises(HoneError, match="trained on other weights than those of"):
        merged(adapter_run, tmp_path / "merged", base=str(other))
    assert not (tmp_path / "merged").exists()


def test_a_base_of_another_shape_is_refused(tmp_path: Path, adapter_run: Path, tiny_model: Any, tokenizer: Any) -> None:
    for name, model in (("wide", tiny_model("gpt2", n_embd=64)), ("llama", tiny_model("llama"))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        with pytest.raises(HoneError, match="the adapter does not fit the base"):
            merged(adapter_run, tmp_path / "merged", base=str(tmp_path / name))
    deeper = tiny_model("gpt2", n_layer=3)
    deeper.save_pretrained(tmp_path / "deeper")
    tokenizer.save_pretrained(tmp_path / "deeper")
    with pytest.raises(HoneError, match="trained on other weights"):
        merged(adapter_run, tmp_path / "merged", base=str(tmp_path / "deeper"))
    named = tmp_path / "named"  # an adapter that names its layers by their last names, which fit a deeper model too
    shutil.copytree(adapter_run, named)
    about = json.loads((named / "adapter_config.json").read_text()) | {"target_modules": ["c_attn", "c_fc", "c_proj"]}
    (named / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(HoneError, match="8 tensors have no counterpart, such as"):
        merged(named, tmp_path / "merged", base=str(tmp_path / "deeper"))


def test_a_base_that_has_gone(tmp_path: Path, adapter_run: Path) -> None:
    with pytest.raises(HoneError, match="the adapter's base does not load") as caught:
        merged(adapter_run, tmp_path / "merged", base=str(tmp_path / "nowhere"))
    assert "--base" in str(caught.value)


def test_a_merge_that_does_not_hold_leaves_nothing(
    tmp_path: Path, adapter_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check reads the files: a writer that spoils them is caught."""
    honest = merging._save

    def spoil(model: Any, tokenizer: Any, source: Path, folder: Path) -> None:
        with torch.no_grad():
            model.transformer.h[1].mlp.c_fc.weight[3, 5] += 1.0
        honest(model, tokenizer, source, folder)

    monkeypatch.setattr(merging, "_save", spoil)
    with pytest.raises(HoneError, match="answers differently"):
        merged(adapter_run, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, adapter_run: Path, model_folder: Path) -> None:
    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["export", *arguments])

    out = ("--to", "merged", "-o", str(tmp_path / "merged"))
    done = invoke(str(adapter_run), *out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["difference"] <= 1e-4 and json.loads(done.stdout)["verified"]
    again = invoke(str(adapter_run), *out)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    for wrong in (("--dtype", "int8"), ("--to", "onnx"), ("--base", str(model_folder))):
        source = model_folder if wrong[0] == "--base" else adapter_run
        refused = invoke(str(source), "--to", "merged", "-o", str(tmp_path / "x"), *wrong)
        assert refused.exit_code == 1 and wrong[0] in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]
    assert "peft" not in json.loads((tmp_path / "merged" / "config.json").read_text())


def test_a_whole_run_becomes_a_plain_folder(
    tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights, tokenizer, template and card; nothing of its training."""
    rows = write_rows("rows.jsonl", pairs(20))
    run = train_lora(tmp_path / "run", model_folder, rows, method="full", save_strategy="steps", save_steps=5)
    monkeypatch.chdir(tmp_path)
    done = hone.export("run", "merged")
    assert done.path == "run-merged" and done.details["difference"] == 0.0
    names = {path.name for path in (tmp_path / "run-merged").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md",
                     "tokenizer_config.json", "template.json", "manifest.json"}  # fmt: skip
    card = (tmp_path / "run-merged" / "README.md").read_text()
    assert "`run` as one plain model folder" in card and "name = 'run-merged'" in card and "side by side" not in card
    assert torch.equal(logits(hone.load("run-merged")[0]), logits(hone.load(run)[0]))
