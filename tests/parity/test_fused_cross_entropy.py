"""Output layer and loss as one operation against logits and cross-entropy: the same loss, the same gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from hone.accelerations import fused_cross_entropy as head_module
from hone.accelerations.equivalence import loss_difference
from hone.accelerations.fused_cross_entropy import FusedCrossEntropy, logits_changed
from hone.data.batches import flat
from hone.data.truncate import IGNORE_INDEX
from hone.loss import causal_lm_loss, scored_positions

V, D = 97, 16


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    items = []
    for n in (5, 9, 1, 7):
        ids = torch.randint(0, V, (n,), generator=rng)
        labels = torch.where(torch.rand(n, generator=rng) < 0.6, ids, IGNORE_INDEX)
        labels[0] = IGNORE_INDEX
        items.append({"input_ids": ids.numpy(), "labels": labels.numpy()})
    rows: Any = flat(items)
    rows.pop("num_tokens")
    labels = rows.pop("labels")
    return {**rows, "use_cache": False}, labels


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "gpt_neox", "opt"])
def test_loss_and_gradients_equal_the_plain_ones(architecture: str, tied: bool, tiny_model: Any) -> None:
    model = tiny_model(architecture, vocab_size=V, tie_word_embeddings=tied).train()
    inputs, labels = batch()
    if architecture == "opt":
        inputs.pop("position_ids")
    plain = causal_lm_loss(model(**inputs).logits, labels, 11)
    want = gradients(model, plain)
    head = FusedCrossEntropy.of(model)
    assert head is not None
    with head.head_skipped():
        hidden = model(**inputs, logits_to_keep=scored_positions(labels)).logits
    loss = head.loss(hidden, labels, 11)
    got = gradients(model, loss)
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=1e-6)
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    again = model(**inputs).logits  # outside of skipped() the model is as it was
    torch.testing.assert_close(causal_lm_loss(again, labels, 11), plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows_at_a_time", [1, 3, 1000])
def test_blocks_of_rows_change_nothing(bias: bool, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "LOGITS_BYTES", rows_at_a_time * V * 4)
    monkeypatch.setattr(head_module, "SOFTMAX_ELEMENTS", 2 * V)
    torch.manual_seed(0)
    linear = nn.Linear(D, V, bias=bias)
    hidden = torch.randn(10, D, requires_grad=True)
    labels = torch.randint(0, V, (1, 11))
    labels[0, 0] = IGNORE_INDEX
    losses = causal_lm_loss(linear(hidden), labels), FusedCrossEntropy(linear, None).loss(hidden, labels)
    torch.testing.assert_close(losses[0], losses[1])
    parameters = [hidden, *linear.parameters()]
    # a factor in front, as loss scaling has
    for want, got in zip(*(torch.autograd.grad(3 * loss, parameters) for loss in losses), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_costs_none() -> None:
    linear = nn.Linear(D, V, bias=False).requires_grad_(False)
    hidden = torch.randn(4, D, requires_grad=True)
    labels = torch.tensor([[IGNORE_INDEX, 1, 2, 3, 4]])
    FusedCrossEntropy(linear, None).loss(hidden, labels).backward()
    assert hidden.grad is not None and linear.weight.grad is None


def test_no_supervised_token_gives_zero() -> None:
    linear = nn.Linear(D, V)
    loss = FusedCrossEntropy(linear, None).loss(torch.empty(0, D, requires_grad=True), torch.full((1, 4), IGNORE_INDEX))
    loss.backward()
    assert loss.item() == 0 and torch.count_nonzero(linear.weight.grad) == 0


def test_bfloat16_stays_close_to_float32() -> None:
    torch.manual_seed(0)
    linear, hidden = nn.Linear(D, V, bias=False), torch.randn(64, D, requires_grad=True)
    labels = torch.randint(0, V, (1, 65))
    exact = FusedCrossEntropy(linear, None).loss(hidden, labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = FusedCrossEntropy(linear, None).loss(hidden, labels)
    assert rounded.dtype == torch.float32 and abs(rounded.item() - exact.item()) < 5e-3
    want, got = (torch.autograd.grad(loss, linear.weight)[0] for loss in (exact, rounded))
    assert got.dtype == torch.float32 and (got - want).norm() < 0.01 * want.norm()


def test_micro_batches_add_up_in_a_tied_matrix(tiny_model: Any) -> None:
    model = tiny_model("gpt2", vocab_size=V).train()
    inputs, labels = batch()
    head = FusedCrossEntropy.of(model)
    assert head is not None and head.embedding is not None
    for _ in range(2):
        with head.head_skipped():
            hidden = model(**inputs, logits_to_keep=scored_positions(labels)).logits
        head.loss(hidden, labels, 11).backward()
    twice = {name: p.grad.clone() for name, p in model.named_parameters()}
    once = gradients(model, causal_lm_loss(model(**inputs).logits, labels, 11))
    for name in once:
        torch.testing.assert_close(twice[name], 2 * once[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("architecture", "applies"), [("gpt2", True), ("llama", True), ("gemma2", False)])
def test_it_steps_aside_where_the_logits_are_changed_after_the_product(
    architecture: str, applies: bool, tiny_model: Any
) -> None:
    model = tiny_model(architecture, vocab_size=V)
    inputs, labels = batch()
    data: Any = [{"input_ids": inputs["input_ids"][0].numpy(), "labels": labels[0].numpy()}]
    fused = FusedCrossEntropy.of(model)
    assert fused is not None
    if architecture == "gemma2":
        model.config.final_logit_softcapping = 0.5
    assert (loss_difference(model, fused, data) is None) is applies
    assert (logits_changed(model) is None) is applies, "and its config says so, for a model without numbers"
    assert all(p.grad is None for p in model.parameters())
