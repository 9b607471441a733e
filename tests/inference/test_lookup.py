"""Guesses from what was there before: kept where they are what is drawn, dropped where not; the tokens are the same."""

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.config.sections.generate import GenerateSection
from hone.inference import native
from hone.inference.engine import Engine, Request
from hone.inference.lookup import LONGEST_PAUSE, Lookup
from hone.inference.stream import Answer, AnswerRule


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, kernels: Path) -> Iterator[None]:
    if sys.platform != "linux" or not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler here")
    monkeypatch.setenv("HONE_NATIVE", "1")
    monkeypatch.setenv("HONE_CACHE", str(kernels))
    native._library.cache_clear()
    yield
    native._library.cache_clear()


def test_what_followed_the_same_tokens_is_guessed() -> None:
    lookup = Lookup()
    assert lookup.guess([1, 2], []) == lookup.guess([1, 2], [3]) == []
    assert lookup.guess([1, 2], [3, 4, 5, 6, 7, 1, 2, 3]) == [4, 5]
    lookup.judge(2, 2)
    assert lookup.guess([1, 2], [3, 4, 5, 6, 7, 1, 2, 3, 4]) == [5, 6, 7, 1]
    lookup.judge(4, 1)
    assert lookup.guess([1, 2], [3, 4, 5, 6, 7, 1, 2, 3, 4, 5]) == [6, 7]
    assert lookup.guess([1, 2], [3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 9]) == []


def test_wrong_guesses_become_rare() -> None:
    """A text that repeats itself to a model that does not: nearly no guess is made any more."""
    lookup, tokens, made = Lookup(), [1, 2, 3], 0
    for _ in range(400):
        tokens += [1, 2, 3]
        if guess := lookup.guess([], tokens):
            made += 1
            lookup.judge(len(guess), 0)
    assert 400 / LONGEST_PAUSE < made < 15


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_tokens_are_those_without_guesses(
    kind: str, kernel: None, tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy and drawn, with penalties, stop texts and little room; scores too, to the last bit, in fewer passes."""
    model, luck = tiny_model(kind), random.Random(0)
    model.lm_head.weight.data *= 20
    cases: list[tuple[list[int], GenerateSection, int, list[str], dict[str, Any]]] = []
    for temperature in (0.0, 0.0, 0.7, 1.0, 2.0):
        part = [luck.randrange(3, 300) for _ in range(9)]
        settings = GenerateSection(temperature=temperature, sampling_seed=len(cases), top_k=5 if temperature else 0)
        for room, stop, more in (
            (60, [], {}),
            (7, [], {}),
            (40, [tokenizer.decode([part[4]])], {"presence_penalty": 0.1}),
        ):
            cases.append((part * 3, settings, room, stop, more))

    def steps(*, lookup: bool) -> list[list[Any]]:
        found = []
        engine = Engine(model, lookup=lookup)
        for prompt, settings, room, stop, more in cases:
            answer = Answer(tokenizer, prompt, AnswerRule([0], stop, room))
            done = list(engine.run(Request(prompt, answer, settings, logprobs=2, **more)))
            assert [step.ended for step in done[:-1]] == [None] * (len(done) - 1) and done[-1].ended
            found.append([(step.token, step.text, step.ended, step.logprob, step.top) for step in done])
        return found

    passes = 0
    compute = native.Kernel.scores

    def counted(self: native.Kernel, kept: torch.Tensor, plan: Any) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return compute(self, kept, plan)

    monkeypatch.setattr(native.Kernel, "scores", counted)
    with_guesses, fewer = steps(lookup=True), passes
    passes = 0
    assert with_guesses == steps(lookup=False)
    assert fewer < 0.8 * passes
