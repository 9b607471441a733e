"""Freezing and LoRA: exactly the wanted parameters train; LoRA starts as the base."""

from pathlib import Path
from typing import Any

import pytest
import torch

import hone
from conftest import pairs
from hone.config.sections.method import MethodSection
from hone.errors import HoneError
from hone.models.freeze import blocks, count_trainable, freeze
from hone.models.lora import add_lora


def trainable(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("architecture", "list_name", "norm"),
    [
        ("gpt2", "transformer.h", "transformer.ln_f"),
        ("llama", "model.layers", "model.norm"),
        ("qwen2", "model.layers", "model.norm"),
        ("opt", "model.decoder.layers", "model.decoder.final_layer_norm"),
        ("gpt_neox", "gpt_neox.layers", "gpt_neox.final_layer_norm"),
    ],
)
def test_top_blocks_and_final_norm_train(architecture: str, list_name: str, norm: str, tiny_model: Any) -> None:
    model = tiny_model(architecture)
    assert blocks(model)[0] == list_name
    freeze(model, 1)
    expected = {n for n, _ in model.named_parameters() if n.startswith((f"{list_name}.1.", f"{norm}."))}
    assert expected
    assert trainable(model) == expected


def test_tied_head_and_embeddings_train_together(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    freeze(model, 0, unfreeze_head=True)
    assert "transformer.wte.weight" in trainable(model)
    separate = tiny_model("gpt_neox", tie_word_embeddings=False)
    freeze(separate, 0, unfreeze_head=True)
    names = trainable(separate)
    assert any("embed_out" in name or "lm_head" in name for name in names)
    assert not any("embed_in" in name for name in names)


def test_more_blocks_than_there_are(tiny_model: Any) -> None:
    with pytest.raises(HoneError, match="has 2 blocks"):
        freeze(tiny_model("gpt2"), 3)


def test_frozen_weights_stay_bitwise_and_the_others_move(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    from safetensors.torch import load_file

    run = hone.train(
        hone.load_config(
            {
                "model_name_or_path": str(model_folder),
                "train_file": str(write_rows("rows.jsonl", pairs(20))),
                "max_length": 128,
                "method": {"method": "freeze", "num_unfrozen_layers": 1},
                "max_steps": 10,
                "save_strategy": "no",
                "sample_prompts": 0,
                "output_dir": str(tmp_path / "run"),
            }
        )
    )
    before, after = load_file(model_folder / "model.safetensors"), load_file(run.folder / "model.safetensors")
    for name, tensor in before.items():
        trained = name.startswith(("transformer.h.1.", "transformer.ln_f."))
        assert torch.equal(tensor, after[name]) != trained, name


def test_lora_starts_as_the_base_and_trains_only_the_adapter(tiny_model: Any, tokenizer: Any) -> None:
    ids = torch.arange(1, 20)[None]
    base = tiny_model("llama")
    with torch.no_grad():
        expected = base(ids).logits
    section = MethodSection(method="lora", lora_r=4, lora_alpha=8, lora_target_modules=["q_proj", "v_proj"])
    model = add_lora(tiny_model("llama"), section).eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, expected)
    assert all("lora_" in name for name in trainable(model))
    # (32 in + 32 out) x 4 for q; one key-value head of 16: (32 + 16) x 4 for v; two layers
    assert count_trainable(model).n_trainable == 2 * (64 * 4 + 48 * 4)


def test_lora_run_loads_with_plain_peft(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    from peft import AutoPeftModelForCausalLM

    run = hone.train(
        hone.load_config(
            {
                "model_name_or_path": str(model_folder),
                "train_file": str(write_rows("rows.jsonl", pairs(20))),
                "max_length": 128,
                "method": {"method": "lora", "lora_r": 4},
                "learning_rate": 1e-2,
                "max_steps": 5,
                "save_strategy": "no",
                "sample_prompts": 0,
                "output_dir": str(tmp_path / "run"),
            }
        )
    )
    ids = torch.arange(1, 20)[None]
    ours, _ = hone.load(run)
    theirs = AutoPeftModelForCausalLM.from_pretrained(str(run.folder)).eval()
    base, _ = hone.load(model_folder)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-6, rtol=0)
        assert not torch.allclose(ours(ids).logits, base(ids).logits, atol=1e-3), "the adapter must be active"


def test_unknown_target_names_the_candidates(tiny_model: Any) -> None:
    with pytest.raises(HoneError, match=r"no linear layer 'query'\n.*c_attn, c_fc, c_proj"):
        add_lora(tiny_model("gpt2"), MethodSection(method="lora", lora_target_modules=["query"]))
