"""Our loss against transformers' and against a calculation by hand."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers.loss.loss_utils import ForCausalLMLoss

from hone.errors import HoneError
from hone.loss import (
    Diverged,
    causal_lm_loss,
    classification_loss,
    refuse_bad_gradient,
    refuse_bad_loss,
    refuse_diverged,
    scored_positions,
    seq2seq_loss,
    target_nll,
    token_nll,
)


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


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 5, 7) and labels (2, 5), some of them -100; the second one of the first row is scored."""
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(2, 5, 7, generator=generator), torch.randint(0, 7, (2, 5), generator=generator)
    labels[0, 3:] = labels[1, :2] = -100
    return logits, labels


def test_the_scored_positions_alone_give_the_same_loss() -> None:
    logits, labels = drawn()
    scored = scored_positions(labels)
    assert scored.tolist() == [[True, True, False, False, False], [False, True, True, True, False]]
    for n_items in (None, 3):
        whole = causal_lm_loss(logits, labels, n_items)
        torch.testing.assert_close(causal_lm_loss(logits[scored], labels, n_items), whole)


def test_loss_of_targets_place_by_place() -> None:
    logits, labels = drawn()
    picked = -F.log_softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels >= 0)
    torch.testing.assert_close(target_nll(logits, labels), picked)
    torch.testing.assert_close(seq2seq_loss(logits, labels), picked.sum() / 6)
    torch.testing.assert_close(seq2seq_loss(logits, labels, 4), picked.sum() / 4)
    assert float(seq2seq_loss(logits, torch.full((2, 5), -100))) == 0


def test_one_supervised_token_is_its_own_mean() -> None:
    logits, _ = drawn()
    labels = torch.full((2, 5), -100)
    labels[1, 3] = 4
    torch.testing.assert_close(causal_lm_loss(logits, labels), -F.log_softmax(logits[1, 2], -1)[4])
    torch.testing.assert_close(causal_lm_loss(logits[1, 2:3], labels), -F.log_softmax(logits[1, 2], -1)[4])
    torch.testing.assert_close(seq2seq_loss(logits, labels), -F.log_softmax(logits[1, 3], -1)[4])


def test_loss_of_classes() -> None:
    logits, classes = drawn()[0][0], torch.tensor([0, 6, 2, 2, 1])
    nll = F.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(classification_loss(logits, classes), nll.mean())
    torch.testing.assert_close(classification_loss(logits, classes, 10), nll.sum() / 10)
    weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    by_hand = (nll * torch.tensor([1.0, 7.0, 3.0, 3.0, 2.0])).sum() / 5
    torch.testing.assert_close(classification_loss(logits, classes, class_weights=weights), by_hand)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_with_its_examples(value: float) -> None:
    for refuse, word in ((refuse_bad_loss, "loss"), (refuse_bad_gradient, "gradient")):
        refuse(1e30, 3, [4])
        with pytest.raises(Diverged, match=f"{word} is {value} at step 3") as caught:
            refuse(value, 3, [4, 5])
        assert caught.value.examples == [4, 5]
    layer = torch.nn.Linear(2, 2)
    refuse_diverged(layer)
    with torch.no_grad():
        layer.bias[1] = value
    with pytest.raises(HoneError, match=r"no longer finite \(bias\)"):
        refuse_diverged(layer)
    layer.bias.requires_grad = False  # a frozen weight was so from the beginning
    refuse_diverged(layer)
