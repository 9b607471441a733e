"""The compiled kernel: transformers' scores whatever the shape, each row's own to the last bit; and without one."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.inference import engine as engine_module
from hone.inference import native, slots
from hone.inference.engine import Engine, Request, Row, answer_all
from hone.inference.fast_step import Plan, Stretch, agrees, scores
from hone.inference.sampling import Rule, each_by_its_rule, next_tokens
from hone.inference.stream import Answer, AnswerRule
from hone.inference.weights import Weights, weights_of

compiled = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here"
)
GROUPED = {"hidden_size": 48, "num_attention_heads": 12, "num_key_value_heads": 1, "head_dim": 20}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"n_embd": 36, "n_head": 4, "n_inner": 101, "activation_function": "gelu"}),
    ("gpt2", {"n_embd": 128, "n_head": 2, "activation_function": "relu", "tie_word_embeddings": False}),
    ("llama", {**GROUPED, "intermediate_size": 77, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
    ("qwen2", {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}),
    ("mistral", {"sliding_window": None}),
]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, kernels: Path) -> Iterator[None]:
    """The kernel, compiled once for all tests here."""
    monkeypatch.setenv("HONE_NATIVE", "1")
    monkeypatch.setenv("HONE_CACHE", str(kernels))
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.fixture
def wild(tiny_model: Callable[..., Any]) -> Callable[..., Any]:
    """A tiny model whose biases and norms are random too: their initial zeros and ones would hide a missing one."""

    def build(kind: str, **more: Any) -> Any:
        model = tiny_model(kind, **more)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) / 3)
        return model

    return build


def with_adapter(model: Any, kind: str) -> Any:
    targets = ["c_attn", "c_proj"] if kind == "gpt2" else ["q_proj", "v_proj", "down_proj", "lm_head"]
    model = get_peft_model(model, LoraConfig(r=5, lora_alpha=9, target_modules=targets)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return model


def room(weights: Weights, rows: int) -> Tensor:
    return torch.zeros((len(weights.layers), rows, 64, 2, weights.n_kept, weights.head_dim))


@compiled
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize(("kind", "more"), FAMILIES)
def test_scores_are_those_of_transformers(
    kind: str, more: dict[str, Any], adapter: bool, kernel: None, wild: Callable[..., Any]
) -> None:
    """Shapes that fit no tile; prompts in stretches beside rows that grow; one to three threads."""
    model, before = wild(kind, **more), torch.get_num_threads()
    if adapter:
        model = with_adapter(model, kind)
    ids = [(7 * i * i) % 300 + 3 for i in range(40)]
    with torch.inference_mode():
        plain, weights = model(torch.tensor([ids])).logits[0], weights_of(model)
        assert weights.kernel is not None and agrees(weights, model, ids) and agrees(weights, model, [5])
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            kept = room(weights, 2)
            found = [scores(weights, kept, Plan(ids[:30], list(range(30)), [0] * 30, [], [Stretch(0, 0, 30, 0)], [29]))]
            for n in range(30, 40):  # the first row grows while the second reads the same in stretches of four
                at = 4 * (n - 30)
                where = [n, *range(at, at + 4)]
                plan = Plan(
                    [ids[p] for p in where], where, [0, 1, 1, 1, 1], [n + 1], [Stretch(1, 1, 5, at)], [0, 1, 2, 3, 4]
                )
                found.append(scores(weights, kept, plan))
            torch.set_num_threads(before)
            grown = torch.cat([found[0], *(one[:1] for one in found[1:])])
            read = torch.cat([one[1:] for one in found[1:]])
            assert (grown - plain[29:]).abs().max() < 1e-4 * plain.abs().max()
            assert (read - plain).abs().max() < 1e-4 * plain.abs().max()
            assert torch.equal(grown, read[29:]), "the same token, the same numbers"


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], list[Tensor]]:
    """What each prompt is scored, step by step, from now on."""
    found: dict[tuple[int, ...], list[Tensor]] = {}
    grow = engine_module._grow

    def record(rows: list[Row], scores: Tensor) -> Any:
        for row, own in zip(rows, scores, strict=True):
            found.setdefault(tuple(row.request.prompt), []).append(own.clone())
        return grow(rows, scores)

    monkeypatch.setattr(engine_module, "_grow", record)
    return found


@compiled
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "sizes"),
    [
        ("gpt2", torch.float32, range(1, 41)),
        ("gpt2", torch.bfloat16, (2, 5, 33)),
        ("llama", torch.float32, (2, 7, 40)),
        ("qwen2", torch.bfloat16, (3, 10, 35)),
    ],
)
def test_a_rows_scores_are_its_own_to_the_last_bit(
    kind: str,
    dtype: Any,
    sizes: Sequence[int],
    kernel: None,
    wild: Callable[..., Any],
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alone and in batches of 1 to 40 that come and go, whatever stretches prompts are read in, whatever threads do."""
    draw, before = random.Random(3), torch.get_num_threads()
    model = wild(kind).to(dtype)
    begin = [draw.randrange(3, 300) for _ in range(12)]
    prompts = [
        begin[: draw.choice([0, 5, 12])] + [draw.randrange(3, 300) for _ in range(1 + n % 23)] for n in range(40)
    ]
    settings = GenerateSection(temperature=1.0)

    def wanted(prompt: list[int], n: int) -> Request:
        return Request(prompt, Answer(tokenizer, [], AnswerRule([], [], 3 + n % 4)), settings)

    def answered(engine: Engine, requests: list[Request], *, all_at_once: bool) -> None:
        for request in requests:
            engine.add(request)
            if not all_at_once and draw.random() < 0.5:
                engine.step()
        while engine.busy:
            engine.step()

    found = recorded(monkeypatch)
    for n, prompt in enumerate(prompts):
        answered(Engine(model), [wanted(prompt, n)], all_at_once=True)
    alone = dict(found)
    for size in sizes:
        found.clear()
        torch.set_num_threads({10: 2, 33: 2, 40: 3}.get(size, 1))
        monkeypatch.setattr(slots, "AT_ONCE", draw.choice([7, 1024]))
        monkeypatch.setattr(slots, "BESIDE_OTHERS", draw.choice([3, 256]))
        chosen = draw.sample(range(40), size)
        answered(Engine(model), [wanted(prompts[n], n) for n in chosen], all_at_once=size % 2 == 0)
        for n in chosen:
            prompt = tuple(prompts[n])
            assert len(found[prompt]) == len(alone[prompt])
            assert all(map(torch.equal, found[prompt], alone[prompt])), (size, n)
    torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize("size", [1, 5, 256, 257, 3000])
def test_draws_are_those_of_pytorch(size: int, kernel: None) -> None:
    """Rows of all settings in one call, each drawn as with rows of its own settings alone; some scores are -inf."""
    torch.manual_seed(size)
    luck = random.Random(size)
    for _ in range(30):
        scores = torch.randn(20, size) * luck.choice([0.1, 1, 10])
        if size > 5:
            scores[:, ::3] = float("-inf")
        rules, expected = [], []
        for i, row in enumerate(scores):
            settings = GenerateSection(
                temperature=luck.choice([0, 1e-40, 0.01, 0.8, 1.0, 5.0]),
                top_k=luck.choice([0, 0, 1, 3, 50]),
                top_p=luck.choice([1.0, 0.999, 0.9, 0.2]),
            )
            min_p = luck.choice([0.0, 0.0, 0.1, 1.0])
            rules.append(Rule(settings, random.Random(i), min_p))
            expected += next_tokens(row[None], settings, [random.Random(i)], min_p)
        assert each_by_its_rule(scores, rules) == expected
    scores[3, size // 2] = float("nan")
    with pytest.raises(HoneError, match="not numbers"):
        each_by_its_rule(scores, rules)


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


def test_without_a_compiler_pytorch_computes(monkeypatch: pytest.MonkeyPatch, tiny_model: Callable[..., Any]) -> None:
    monkeypatch.setenv("HONE_NATIVE", "1")
    native._library.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert weights_of(tiny_model("gpt2")).kernel is None
    native._library.cache_clear()


@compiled
def test_a_compiler_that_fails_is_no_fault(
    kernel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, tiny_model: Callable[..., Any]
) -> None:
    def fails(command: list[str]) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "_run", fails)
    assert weights_of(tiny_model("gpt2")).kernel is None


@compiled
def test_other_types_are_left_to_pytorch(kernel: None, tiny_model: Callable[..., Any]) -> None:
    assert weights_of(tiny_model("gpt2").half()).kernel is None
    assert weights_of(tiny_model("llama").double()).dtype == torch.float64


@compiled
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_in_bfloat16_is_computed_in_float32(kind: str, kernel: None, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind).to(torch.bfloat16)
    ids = list(range(5, 25))
    with torch.inference_mode():
        weights = weights_of(model)
        assert weights.dtype == torch.float32 and weights.embed.dtype == torch.bfloat16
        assert agrees(weights, model, ids)
        plan = Plan(ids, list(range(20)), [0] * 20, [], [Stretch(0, 0, 20, 0)], list(range(20)))
        own, exact = scores(weights, room(weights, 1), plan), model.float()(torch.tensor([ids])).logits[0]
        assert (own - exact).abs().max() < 1e-4 * exact.abs().max()


def test_one_thread_goes_on_alone_after_two_disturbed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(native.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(native.torch, "get_num_threads", lambda: 4)
    pace, given = native.Pace(), []
    for of_processor in (3.9, 2.0, 3.9, 2.0, 2.0):  # of four seconds that four threads could have had in one
        given.append(pace.threads())
        pace.judge(given[-1], 1.0, of_processor)
    assert given == [4] * 5 and pace.threads() == 1, "one disturbed pass between others is nothing"
    pace.judge(1, 1.0, 0.3)
    now[0] += native.FIRST_PAUSE
    assert pace.threads() == 4, "all are tried again"
    pace.judge(4, 1.0, 1.0)
    now[0] += native.FIRST_PAUSE
    assert pace.threads() == 1, "in vain: the pause is longer"
    now[0] += native.FIRST_PAUSE
    pace.judge(pace.threads(), 1.0, 4.0)
    pace.judge(pace.threads(), 1.0, 1.0)
    assert pace.threads() == 4, "an undisturbed pass is a new start"
