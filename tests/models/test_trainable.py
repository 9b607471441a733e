"""Freezing and LoRA: exactly the wanted parameters train; LoRA starts as the base."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

import hone
import hone.training.train as story
from conftest import pairs
from hone.config.sections.method import MethodSection
from hone.errors import HoneError
from hone.models.freeze import blocks, count_trainable, freeze, groups, trainable_lines
from hone.models.load import load_finished
from hone.models.lora import add_lora
from hone.training.setup import build_trainer
from tiny_tasks import BART, T5

ENCODER_DECODERS = {"t5": T5, "bart": BART}


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


@pytest.fixture
def folder_of(tmp_path: Path, tokenizer: Any, tiny_model: Any) -> Any:
    """folder_of("t5") -> a folder with a random two-layer model of that type and the tokenizer."""

    def make(architecture: str) -> Path:
        if architecture in ENCODER_DECODERS:
            torch.manual_seed(0)
            ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
            sizes = {"vocab_size": len(tokenizer), **ends, **ENCODER_DECODERS[architecture]}
            model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(architecture, **sizes))
        else:
            model = tiny_model(architecture)
        model.save_pretrained(tmp_path / architecture)
        tokenizer.save_pretrained(tmp_path / architecture)
        return tmp_path / architecture

    return make


@pytest.fixture
def ten_steps(tmp_path: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """ten_steps(folder, **method) -> (weights before, weights after, the trainer) of a run with much weight decay."""
    trainers: list[Any] = []

    def build(*arguments: Any) -> Any:
        trainer, stopper = build_trainer(*arguments)
        trainers.append(trainer)
        return trainer, stopper

    monkeypatch.setattr(story, "build_trainer", build)

    def train(folder: Path, **method: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
        task = "seq2seq" if folder.name in ENCODER_DECODERS else "causal"
        settings = {
            "model_name_or_path": str(folder),
            "train_file": str(write_rows("rows.jsonl", pairs(20))),
            "max_length": 64,
            "max_target_length": 32,
            "method": {"task": task, **method},
            "weight_decay": 0.1,
            "max_steps": 10,
            "save_strategy": "no",
            "use_cpu": True,
            "sample_prompts": 0,
            "eval_base": False,
            "validation_split_percentage": 0,
            "output_dir": str(tmp_path / "run"),
        }
        run = hone.train(hone.load_config(settings))
        assert sum("loss" in line for line in run.metric_lines()) > 0
        before, after = (dict(load_finished(str(place)).named_parameters()) for place in (folder, run.folder))
        return before, after, trainers[-1]

    return train


@pytest.mark.parametrize(
    ("architecture", "trained"),
    [
        ("gpt2", ("transformer.h.1.", "transformer.ln_f.")),
        ("llama", ("model.layers.1.", "model.norm.")),
        ("qwen2", ("model.layers.1.", "model.norm.")),
        ("opt", ("model.decoder.layers.1.", "model.decoder.final_layer_norm.")),
        ("gpt_neox", ("gpt_neox.layers.1.", "gpt_neox.final_layer_norm.")),
        ("t5", ("decoder.block.1.", "decoder.final_layer_norm.")),
        ("bart", ("model.decoder.layers.1.",)),
    ],
)
def test_ten_steps_change_the_top_and_not_a_bit_below(
    architecture: str, trained: tuple[str, ...], folder_of: Any, ten_steps: Any
) -> None:
    before, after, trainer = ten_steps(folder_of(architecture), method="freeze", num_unfrozen_layers=1)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(trained)} != set()
    held = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    assert sorted(names[id(parameter)] for parameter in held) == sorted(changed)
    assert {names[id(parameter)] for parameter in trainer.optimizer.state} == changed


def test_the_head_of_an_encoder_decoder_is_its_one_table_of_tokens(folder_of: Any, ten_steps: Any) -> None:
    method = {"method": "freeze", "num_unfrozen_layers": 0, "unfreeze_head": True}
    before, after, _ = ten_steps(folder_of("t5"), **method)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"shared.weight", "decoder.final_layer_norm.weight"}


def test_blocks_of_an_encoder_decoder_are_the_decoders(folder_of: Any) -> None:
    model = load_finished(str(folder_of("t5")))
    with pytest.raises(HoneError, match=r"num_unfrozen_layers is 3.* 2 blocks \(decoder.block\)"):
        freeze(model, 3)
    model = load_finished(str(folder_of("bart")))
    with pytest.raises(HoneError, match=r"nothing is left to train: Bart.* has no final norm"):
        freeze(model, 0)


@pytest.mark.parametrize("method", [{"method": "freeze", "num_unfrozen_layers": 1}, {"method": "lora", "lora_r": 2}])
@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_run_says_what_trains_and_what_is_tied(
    architecture: str, method: dict[str, Any], folder_of: Any, ten_steps: Any, tmp_path: Path
) -> None:
    _, _, trainer = ten_steps(folder_of(architecture), **method)
    told = (tmp_path / "run" / "train.log").read_text()
    count = count_trainable(trainer.model)
    assert f"{count.n_parameters:,} parameters, {count.n_trainable:,} trainable" in told
    lines = trainable_lines(trainer.model)
    assert all(line in told for line in lines)
    assert [line[:6].strip() for line in lines if line[:6].strip()] == ["trains", "frozen"]
    assert re.search(r"\(also .*lm_head: one tensor\)", told)
    rows = groups(trainer.model)
    assert sum(row.n_parameters for row in rows if row.trains) == count.n_trainable
    assert sum(row.n_parameters for row in rows) == count.n_parameters


def test_lora_starts_as_the_base_and_trains_only_the_adapter(tiny_model: Any, tokenizer: Any) -> None:
    ids = torch.arange(1, 20)[None]
    base = tiny_model("llama")
    with torch.no_grad():
        expected = base(ids).logits
    section = MethodSection(method="lora", lora_r=4, lora_alpha=8, lora_target_modules=["q_proj", "v_proj"])
    model = add_lora(tiny_model("llama"), section, peft_task="CAUSAL_LM").eval()
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
        add_lora(tiny_model("gpt2"), MethodSection(method="lora", lora_target_modules=["query"]), peft_task="CAUSAL_LM")
