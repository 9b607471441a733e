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
from hone.inference.native import FEW_ROWS, product_of
from hone.inference.stream import Answer, AnswerRule

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
    native._kernel.cache_clear()
    yield
    native._kernel.cache_clear()


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_products_are_those_of_pytorch(kernel: None, threads: int) -> None:
    """Shapes that fit no tile, rows that fill none, both layouts, with and without a bias."""
    torch.manual_seed(0)
    assert native._kernel() is not None
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
    native._kernel.cache_clear()
    assert answers() == found


def test_without_a_compiler_pytorch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_NATIVE", "1")
    native._kernel.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert product_of(torch.ones(2, 2), None).func is native._plain
    native._kernel.cache_clear()


@compiled
def test_a_compiler_that_fails_is_no_fault(kernel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def fails(command: list[str]) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_run", fails)
    assert product_of(torch.ones(2, 2), None).func is native._plain
