"""Our loss against transformers' and against a calculation by hand."""

import math
from typing import Any

import torch
from transformers.loss.loss_utils import ForCausalLMLoss

from hone.loss import causal_lm_loss, token_nll


def test_loss_equals_transformers_on_random_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 11, 29, generator=generator)
    labels = torch.randint(0, 29, (3, 11), generator=generator)
    labels[0, :4] = labels[2, 7:] = -100
    expected = ForCausalLMLoss(logits, labels, vocab_size=29)
    torch.testing.assert_close(causal_lm_loss(logits, labels), expected, atol=1e-6, rtol=0)
    expected = ForCausalLMLoss(logits, labels, vocab_size=29, num_items_in_batch=torch.tensor(50))
    torch.testing.assert_close(causal_lm_loss(logits, labels, 50), expected, atol=1e-6, rtol=0)


def test_by_hand() -> None:
    """Two tokens are scored: the second with p = 1/2, the third with p = 1/4."""
    logits = torch.tensor([[[0.0, 0.0, -math.inf], [0.0, math.log(2), 0.0], [9.0, 9.0, 9.0]]])
    labels = torch.tensor([[-100, 1, 2]])
    assert token_nll(logits, labels).tolist()[0] == [math.log(2), math.log(4)] or torch.allclose(
        token_nll(logits, labels), torch.tensor([[math.log(2), math.log(4)]])
    )
    assert math.isclose(float(causal_lm_loss(logits, labels)), (math.log(2) + math.log(4)) / 2, rel_tol=1e-6)


def test_nothing_supervised_is_zero_and_has_a_gradient_of_zero() -> None:
    logits = torch.randn(1, 4, 5, requires_grad=True)
    loss = causal_lm_loss(logits, torch.full((1, 4), -100))
    loss.backward()
    assert float(loss) == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0.0


def test_model_loss_equals_ours(tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("qwen2")
    ids = torch.randint(0, len(tokenizer), (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = model(ids, labels=ids)
    torch.testing.assert_close(causal_lm_loss(output.logits, ids), output.loss, atol=1e-6, rtol=0)
