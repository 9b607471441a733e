"""The same examples flat, packed and padded: the same losses and gradients, and no example sees another.

Tolerance: float32, |Δ loss| <= 1e-5 and |Δ gradient| <= 1e-5 + 1e-4 |gradient|: sums in another order, nothing else.
"""

import functools
from typing import Any

import numpy as np
import pytest
import torch

from hone.accelerations.equivalence import heeds_logits_to_keep, isolation_error, keeps_examples_apart
from hone.data.batches import flat, pack, packed, padded
from hone.loss import causal_lm_loss, scored_positions, token_nll

ARCHITECTURES = ["gpt2", "llama", "qwen2", "mistral", "gemma2", "gpt_neox"]


def make_items(vocab_size: int, lengths: list[int], seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    items = []
    for n in lengths:
        ids = rng.integers(1, vocab_size, n)
        labels = ids.copy()
        labels[: rng.integers(1, n)] = -100  # a masked prompt of uneven length
        items.append({"input_ids": ids, "labels": labels})
    return items


def loss_and_gradients(model: Any, batches: list[dict[str, Any]]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    num_items = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    total = torch.tensor(0.0)
    for batch in batches:
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "num_tokens")}
        total = total + causal_lm_loss(model(**inputs, use_cache=False).logits, batch["labels"], num_items)
    total.backward()
    return float(total), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layouts_agree_in_loss_and_gradients(architecture: str, tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model(architecture)
    lengths = [5, 17, 9, 30, 2, 12, 21]
    items = make_items(len(tokenizer), lengths)
    rows = [[items[i] for i in row] for row in pack(np.array(lengths), 40)]
    assert len(rows) < len(items), "packing must put several examples in a row, or the test shows nothing"
    layouts = {
        "one by one": [padded([item], 0) for item in items],
        "padded": [padded(items, pad_token_id=0)],
        "flat": [flat(items)],
        "packed": [packed(rows, max_length=40, pad_token_id=0)],
        "flat, two micro-batches": [flat(items[:3]), flat(items[3:])],
    }
    expected_loss, expected = loss_and_gradients(model, layouts.pop("one by one"))
    for name, batches in layouts.items():
        loss, gradients = loss_and_gradients(model, batches)
        assert abs(loss - expected_loss) <= 1e-5, name
        for parameter, gradient in expected.items():
            torch.testing.assert_close(gradients[parameter], gradient, atol=1e-5, rtol=1e-4, msg=f"{name}: {parameter}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_changing_one_example_never_changes_another(architecture: str, tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model(architecture)
    items = make_items(len(tokenizer), [6, 11, 8])
    changed = make_items(len(tokenizer), [6, 11, 8])
    changed[0] = make_items(len(tokenizer), [6], seed=9)[0]
    for lay_out in (flat, functools.partial(_one_row, max_length=30)):
        nll = []
        for batch in (lay_out(items), lay_out(changed)):
            inputs = {k: v for k, v in batch.items() if k not in ("labels", "num_tokens")}
            with torch.no_grad():
                nll.append(token_nll(model(**inputs, use_cache=False).logits, batch["labels"])[0])
        assert not torch.equal(nll[0][:5], nll[1][:5]), "the changed example must differ"
        torch.testing.assert_close(nll[0][6:24], nll[1][6:24], atol=1e-6, rtol=0)


def _one_row(items: list[Any], max_length: int) -> dict[str, Any]:
    return packed([items], max_length=max_length, pad_token_id=0)


class _Probe:
    """The least a dataset must be for the isolation check."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return {k: v.copy() for k, v in self.items[index].items()}


def test_isolation_check_passes_models_that_isolate_and_catches_one_that_does_not(
    tiny_model: Any, tokenizer: Any
) -> None:
    probe: Any = _Probe(make_items(len(tokenizer), [20, 25, 15]))
    model = tiny_model("llama")
    assert keeps_examples_apart(model, probe)

    class Leaky(type(model)):  # type: ignore[misc]
        """A model that ignores where examples begin, as architectures without position ids do."""

        def forward(self, input_ids: Any, position_ids: Any = None, **kwargs: Any) -> Any:
            return super().forward(input_ids, position_ids=torch.arange(input_ids.shape[1])[None], **kwargs)

    leaky = tiny_model("llama")
    leaky.__class__ = Leaky
    assert isolation_error(leaky, probe) > 0.05
    assert not keeps_examples_apart(leaky, probe)


def test_model_without_position_ids_is_not_trusted(tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("gpt2")

    class NoPositions(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Any, use_cache: bool = False) -> Any:
            return super().forward(input_ids)

    model.__class__ = NoPositions
    probe: Any = _Probe(make_items(len(tokenizer), [8, 9, 7]))
    assert not keeps_examples_apart(model, probe)


def test_padding_never_changes_a_loss(tiny_model: Any, tokenizer: Any) -> None:
    """Also where the pad id is the end token's: padding is known by position, not by id."""
    model = tiny_model("gpt2")
    item = make_items(len(tokenizer), [10])[0]
    item["labels"][-1] = item["input_ids"][-1] = tokenizer.eos_token_id
    longer = make_items(len(tokenizer), [40], seed=3)[0]
    with torch.no_grad():
        alone = padded([item], pad_token_id=tokenizer.eos_token_id)
        nll = token_nll(model(alone["input_ids"]).logits, alone["labels"])[0]
        both = padded([item, longer], pad_token_id=tokenizer.eos_token_id)
        logits = model(both["input_ids"], attention_mask=both["attention_mask"]).logits
        beside = token_nll(logits, both["labels"])[0]
    torch.testing.assert_close(beside[:9], nll, atol=1e-5, rtol=0)
    assert float(nll[-1]) > 0, "the end token is supervised"
    assert bool((beside[9:] == 0).all()), "padding is not"


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "opt"])
def test_logits_of_scored_rows_only_change_nothing(architecture: str, tiny_model: Any, tokenizer: Any) -> None:
    """Loss and gradients with the head at every position, and only where a label follows; gemma2 caps its logits."""
    model = tiny_model(architecture)
    items = make_items(len(tokenizer), [5, 17, 9, 30, 2, 12, 21])
    assert heeds_logits_to_keep(model, _Probe(items))  # type: ignore[arg-type]
    layouts = [padded(items, pad_token_id=0)] + ([flat(items)] if architecture != "opt" else [])
    for batch in layouts:
        inputs = {k: v for k, v in batch.items() if k not in ("labels", "num_tokens")}
        results = []
        for chosen in ({}, {"logits_to_keep": scored_positions(batch["labels"])}):
            model.zero_grad()
            logits = model(**inputs, use_cache=False, **chosen).logits
            loss = causal_lm_loss(logits, batch["labels"])
            loss.backward()
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            results.append((float(loss.detach()), gradients, logits.shape))
        assert results[1][2][0] == int((batch["labels"] != -100).sum()), "one row of logits per supervised token"
        assert abs(results[0][0] - results[1][0]) <= 1e-5
        for name, gradient in results[0][1].items():
            torch.testing.assert_close(results[1][1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_model_that_ignores_logits_to_keep_is_found_out(tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("llama")

    class Deaf(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Any, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
            return super().forward(input_ids, **kwargs)

    model.__class__ = Deaf
    assert not heeds_logits_to_keep(model, _Probe(make_items(len(tokenizer), [8, 9, 7])))  # type: ignore[arg-type]
