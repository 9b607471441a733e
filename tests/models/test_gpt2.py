"""The glass-box GPT-2 beside transformers': the same logits and gradients, causality, sizes, and what it refuses.

Tolerance: |Δ logit| <= 1e-5 in float32 over whole tensors; sums in another order, nothing else.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.errors import HoneError
from hone.models.gpt2 import GPT2, SIZES, GPT2Config, fill, load_gpt2, save_gpt2

PARAMETERS = {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080, "1558M": 1_557_611_200}
TINY = GPT2Config(n_vocab=97, n_ctx=40, n_embd=24, n_head=3, n_layer=3)


def theirs(config: GPT2Config, seed: int = 0, spread: float = 0.3) -> Any:
    """transformers' GPT-2 of these sizes, with weights large enough for a wrong attention to show."""
    from transformers import GPT2Config as HFConfig
    from transformers import GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        HFConfig(
            vocab_size=config.n_vocab,
            n_positions=config.n_ctx,
            n_embd=config.n_embd,
            n_head=config.n_head,
            n_layer=config.n_layer,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return model.eval()


def ours(model: Any, config: GPT2Config = TINY) -> GPT2:
    return fill(GPT2(config), {name: tensor.clone() for name, tensor in model.state_dict().items()})


def random_ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(TINY.n_vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 2, 7, 39, 40])
def test_logits_are_those_of_transformers(length: int) -> None:
    other = theirs(TINY)
    ids = random_ids(3, length)
    with torch.no_grad():
        torch.testing.assert_close(ours(other)(ids), other(ids).logits, atol=1e-5, rtol=0)


def test_gradients_are_those_of_transformers() -> None:
    other = theirs(TINY)
    mine = ours(other)
    ids = random_ids(2, 30)
    for logits in (mine(ids), other(ids).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    expected = {name.removeprefix("transformer."): p.grad for name, p in other.named_parameters()}
    found = {name: p.grad for name, p in mine.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_token_sees_itself_and_those_before_it() -> None:
    model = ours(theirs(TINY))
    ids = random_ids(1, 20)
    with torch.no_grad():
        before = model(ids)
        for at in (0, 7, 19):
            changed = ids.clone()
            changed[0, at] = (ids[0, at] + 1) % TINY.n_vocab
            after = model(changed)
            torch.testing.assert_close(after[:, :at], before[:, :at], atol=1e-6, rtol=0)
            assert ((after[0, at:] - before[0, at:]).abs().amax(-1) > 1e-3).all(), "all that follows depends on it"


def test_rows_do_not_see_each_other() -> None:
    model = ours(theirs(TINY))
    ids = random_ids(4, 15)
    with torch.no_grad():
        together = model(ids)
        for row in range(4):
            torch.testing.assert_close(model(ids[row : row + 1])[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_four_sizes(size: str) -> None:
    """Counted on the meta device: shapes without memory. The head is the embedding and counts once."""
    from transformers import GPT2Config as HFConfig
    from transformers import GPT2LMHeadModel

    config = SIZES[size]
    with torch.device("meta"):
        model = GPT2(config)
        other = GPT2LMHeadModel(HFConfig(n_embd=config.n_embd, n_head=config.n_head, n_layer=config.n_layer))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[size]
    shapes = {name.removeprefix("transformer."): p.shape for name, p in other.named_parameters()}
    assert {name: p.shape for name, p in model.named_parameters()} == shapes


def test_initial_weights_predict_nothing_and_are_of_the_right_size() -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_vocab=200, n_ctx=32, n_embd=64, n_head=4, n_layer=8)
    model = GPT2(config)
    assert abs(float(model.h[0].mlp.c_fc.weight.detach().std()) - 0.02) < 1e-3
    assert abs(float(model.h[0].mlp.c_proj.weight.detach().std()) - 0.02 / 4) < 3e-4  # sqrt(2 * 8 blocks) = 4
    ids = torch.randint(200, (8, 32))
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert abs(loss.item() - 5.298) < 0.1  # log(200)


def test_saved_for_transformers_and_back(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = ours(theirs(TINY))
    save_gpt2(model, tmp_path / "saved", end_id=3)
    again, other = load_gpt2(tmp_path / "saved"), AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert again.config == TINY
    assert (other.config.eos_token_id, type(other).__name__) == (3, "GPT2LMHeadModel")
    ids = random_ids(2, 12)
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
        torch.testing.assert_close(other(ids).logits, model(ids), atol=1e-5, rtol=0)


def test_what_transformers_saved_is_loaded(tmp_path: Path) -> None:
    other = theirs(TINY)
    other.save_pretrained(tmp_path)
    ids = random_ids(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(load_gpt2(tmp_path)(ids), other(ids).logits, atol=1e-5, rtol=0)


def test_masks_of_old_files_are_passed_over() -> None:
    other = theirs(TINY)
    weights = {**other.state_dict(), "transformer.h.0.attn.bias": torch.ones(1, 1, 40, 40)}
    weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    assert torch.equal(fill(GPT2(TINY), weights)(random_ids(1, 5)), ours(other)(random_ids(1, 5)))


def test_weights_that_do_not_fit_are_refused() -> None:
    weights = {name: tensor.clone() for name, tensor in theirs(TINY).state_dict().items()}
    cases = {
        r"h\.1\.ln_1\.weight is missing": {"transformer.h.1.ln_1.weight": None},
        r"h\.3\.ln_1\.weight is not a weight of such": {"transformer.h.3.ln_1.weight": torch.ones(24)},
        r"wpe\.weight is \(41, 24\), expected \(40, 24\)": {"transformer.wpe.weight": torch.ones(41, 24)},
    }
    for message, change in cases.items():
        given = {name: tensor for name, tensor in {**weights, **change}.items() if tensor is not None}
        with pytest.raises(HoneError, match=message):
            fill(GPT2(TINY), given)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_type", "llama"), ("activation_function", "gelu"), ("layer_norm_epsilon", 1e-6), ("n_inner", 50),
     ("scale_attn_by_inverse_layer_idx", True), ("tie_word_embeddings", False)],
)  # fmt: skip
def test_variants_that_compute_something_else_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    save_gpt2(GPT2(TINY), tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, key: value}))
    with pytest.raises(HoneError, match=key):
        load_gpt2(tmp_path)


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    save_gpt2(GPT2(TINY), tmp_path / "whole")
    for name in ("config.json", "model.safetensors"):
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(HoneError, match=f"no {name}"):
            load_gpt2(tmp_path / name)
    weights = tmp_path / "whole" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(HoneError, match="damaged"):
        load_gpt2(tmp_path / "whole")
