"""Attention by segments against transformers' masked attention: logits and gradients, six architectures, float32.

Tolerance: |Δ| <= 1e-5 + 1e-4 |value|.
"""

from typing import Any

import numpy as np
import pytest
import torch
from test_batching import make_items

from hone.accelerations import varlen_attention as attention
from hone.accelerations.varlen_attention import NAME, use_varlen_attention
from hone.data.batches import flat, packed, padded
from hone.loss import causal_lm_loss


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "num_tokens")}
    logits = model(**inputs, use_cache=False).logits
    causal_lm_loss(logits, batch["labels"]).backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("longest_product", [0, 20, 512])  # the fused kernel, either of both, products
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "mistral", "gpt_neox"])
def test_equals_masked_attention(
    architecture: str, longest_product: int, tiny_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LONGEST_PRODUCT", longest_product)
    model = tiny_model(architecture)
    items = make_items(len(tokenizer), [5, 17, 9, 30, 2])
    whole = make_items(len(tokenizer), [12, 12, 12], seed=4)
    batches = {
        "flat": flat(items),
        "packed, one row of a single example": packed([items[:2], items[3:4], items[2:3] + items[4:]], 30, 0),
        "windows": padded(whole, 0),
        "padded": padded(items, 0),
    }
    expected = {name: loss_and_gradients(model, batch) for name, batch in batches.items()}
    assert use_varlen_attention(model, max_length=64)
    assert model.config._attn_implementation == NAME
    for name, batch in batches.items():
        logits, gradients = loss_and_gradients(model, batch)
        real = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(batch["labels"]).bool()
        torch.testing.assert_close(logits[real], expected[name][0][real], atol=1e-5, rtol=1e-4, msg=name)
        for parameter, gradient in expected[name][1].items():
            torch.testing.assert_close(gradients[parameter], gradient, atol=1e-5, rtol=1e-4, msg=f"{name}: {parameter}")


def test_generation_is_unchanged(tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("qwen2")
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, len(tokenizer), (2, 9)))
    mask = torch.tensor([[0] * 3 + [1] * 6, [1] * 9])
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    assert use_varlen_attention(model, max_length=64)
    assert torch.equal(model.generate(ids, **options), expected)


def test_steps_aside(tiny_model: Any) -> None:
    assert not use_varlen_attention(tiny_model("gemma2"), 64), "capped scores"
    assert not use_varlen_attention(tiny_model("mistral", sliding_window=16), 64), "a window shorter than the examples"
    assert not use_varlen_attention(tiny_model("gpt2"), 64, device="cuda")
    eager = tiny_model("gpt2")
    eager.set_attn_implementation("eager")
    assert not use_varlen_attention(eager, 64)


def test_saved_config_names_no_attention_of_ours(tiny_model: Any, tmp_path: Any) -> None:
    model = tiny_model("gpt2")
    assert use_varlen_attention(model, 64)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()


def test_products_in_bfloat16_stay_as_close_to_float32_as_the_fused_kernel() -> None:
    torch.manual_seed(0)
    lengths = [40, 1, 23]
    exact = [torch.randn(1, heads, 64, 16, requires_grad=True) for heads in (4, 2, 2)]  # two heads share each key
    weights = torch.randn(1, 64, 4, 16)

    def fused(q: Any, k: Any, v: Any) -> torch.Tensor:
        parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
        attend = torch.nn.functional.scaled_dot_product_attention
        return torch.cat([attend(*part, is_causal=True, enable_gqa=True) for part in parts], dim=2).transpose(1, 2)

    def products(q: Any, k: Any, v: Any) -> torch.Tensor:
        return attention.segment_products(q, k, v, lengths)

    want = torch.autograd.grad((fused(*exact) * weights).sum(), exact)
    torch.testing.assert_close(products(*exact), fused(*exact), atol=1e-5, rtol=1e-4)
    errors = {}
    for way in (fused, products):
        rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
        got = torch.autograd.grad((way(*rounded) * weights).sum(), rounded)
        errors[way] = [float((a - b).norm() / b.norm()) for a, b in zip(got, want, strict=True)]
    assert all(mine < 1.5 * theirs + 1e-3 for mine, theirs in zip(errors[products], errors[fused], strict=True)), errors
