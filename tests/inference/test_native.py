"""The compiled kernel: PyTorch's products, whatever the shape; nothing of it where there is no compiler."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hone.config.sections.generate import GenerateSection
from hone.inference import native
from hone.inference.engine import Engine, Request, answer_all
from hone.inference.fast_step import Plan, Stretch, agrees, scores
from hone.inference.native import FEW_ROWS, product_of
from hone.inference.stream import Answer, AnswerRule
from hone.inference.weights import weights_of

compiled = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, cache: Any) -> Iterator[None]:
    """The kernel, compiled once for all tests here."""
    monkeypatch.setenv("HONE_NATIVE", "1")
    monkeypatch.setenv("HONE_CACHE", str(cache))
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_products_are_those_of_pytorch(kernel: None, threads: int) -> None:
    """Shapes that fit no tile, rows that fill none, both layouts, with and without a bias."""
    torch.manual_seed(0)
    assert native._library(torch.float32) is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for n_in, n_out in [(64, 128), (320, 960), (37, 101), (1, 1), (15, 64), (129, 3), (48, 200)]:
            for n in (1, 2, 3, 4, 5, 7, 16, FEW_ROWS, FEW_ROWS + 1):
                x, bias = torch.randn(n, n_in), torch.randn(n_out)
                for weight in (torch.randn(n_out, n_in), torch.randn(n_in, n_out).t()):
                    for added in (bias, None):
                        expected = F.linear(x.double(), weight.double(), None if added is None else added.double())
                        assert (product_of(weight, added)(x) - expected).abs().max() < 1e-4
    finally:
        torch.set_num_threads(before)


@compiled
def test_rows_that_do_not_lie_together_and_other_types(kernel: None) -> None:
    x, weight = torch.randn(4, 20)[:, ::2], torch.randn(6, 10)
    assert torch.allclose(product_of(weight, None)(x), x @ weight.t(), atol=1e-5)
    cut = torch.randn(6, 20)[:, :10]
    for odd in (cut, weight.double()):
        assert product_of(odd, None).func is native._plain, "left to PyTorch"


@compiled
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_answers_are_the_same_with_it(
    kind: str, kernel: None, tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers() -> list[list[int]]:
        settings = GenerateSection(temperature=1.0)
        rules = [AnswerRule([], [], room) for room in (20, 9, 14)]
        asked = [Request([5, 6, n], Answer(tokenizer, [], rule), settings) for n, rule in enumerate(rules, 7)]
        answer_all(Engine(model), asked)
        return [request.answer.ids for request in asked]

    model = tiny_model(kind)
    found = answers()
    monkeypatch.setenv("HONE_NATIVE", "0")
    native._library.cache_clear()
    assert answers() == found


def test_without_a_compiler_pytorch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_NATIVE", "1")
    native._library.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert product_of(torch.ones(2, 2), None).func is native._plain
    native._library.cache_clear()


@compiled
def test_a_compiler_that_fails_is_no_fault(kernel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def fails(command: list[str]) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_run", fails)
    assert product_of(torch.ones(2, 2), None).func is native._plain


@compiled
@pytest.mark.parametrize("n_in_and_out", [(48, 33), (320, 128), (64, 100)])
def test_bfloat16_weights_are_read_as_they_are(kernel: None, n_in_and_out: tuple[int, int]) -> None:
    """In both layouts, against the product in float32 of the same numbers; for any number of rows."""
    n_in, n_out = n_in_and_out
    torch.manual_seed(0)
    for n in (1, 3, 5, FEW_ROWS + 9):
        x, bias = torch.randn(n, n_in), torch.randn(n_out).bfloat16()
        for weight in (torch.randn(n_out, n_in).bfloat16(), torch.randn(n_in, n_out).bfloat16().t()):
            found = product_of(weight, bias)(x)
            expected = F.linear(x.double(), weight.double(), bias.double())
            assert found.dtype == torch.float32 and (found - expected).abs().max() < 1e-4


@compiled
@pytest.mark.parametrize("dim", [16, 64, 128])
@pytest.mark.parametrize("group", [1, 3])
def test_attention_is_that_of_pytorch(kernel: None, dim: int, group: int) -> None:
    """Rows of 1 to 50 tokens, queries cut from a wider tensor, large and small scores."""
    torch.manual_seed(0)
    memory, lengths = torch.randn(4, 50, 2, 2, dim), torch.tensor([50, 1, 17, 32])
    wide = torch.randn(4, 3 * 2 * group * dim) * torch.tensor([1.0, 1.0, 40.0, 0.01])[:, None]
    q = wide[:, : 2 * group * dim].view(4, 2 * group, dim)
    found = native.attention(q, memory, lengths, dim**-0.5)
    assert found is not None
    for row, n in enumerate(lengths.tolist()):
        k, v = memory[row, :n].permute(1, 2, 0, 3).double()
        expected = F.scaled_dot_product_attention(q[row].view(2, group, dim).double(), k, v)
        assert (found[row] - expected.flatten()).abs().max() < 1e-5
    assert native.attention(q[..., :8], memory[..., :8], lengths, 1.0) is None, "left to PyTorch"


@compiled
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_in_bfloat16_is_computed_in_float32(kind: str, kernel: None, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind).to(torch.bfloat16)
    ids = list(range(5, 25))
    with torch.inference_mode():
        weights = weights_of(model)
        assert weights.dtype == torch.float32 and weights.embed.dtype == torch.bfloat16
        assert agrees(weights, model, ids)
        kept = torch.zeros((len(weights.layers), 1, 32, 2, weights.n_kept, weights.head_dim))
        plan = Plan(ids, list(range(20)), [0] * 20, [], [Stretch(0, 0, 20, 0)], list(range(20)))
        own, exact = scores(weights, kept, plan), model.float()(torch.tensor([ids])).logits[0]
        assert (own - exact).abs().max() < 1e-4 * exact.abs().max()
