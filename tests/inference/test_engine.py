"""The engine: rows that come and go at any step are answered as each alone, with settings of their own."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hone.config.sections.generate import GenerateSection
from hone.inference.engine import Engine, Request, Row, answer_all
from hone.inference.stream import Answer, AnswerRule
from tiny_tasks import BART, T5

KINDS = ["gpt2", "llama", "qwen2", "mistral", "gpt_neox", "t5", "bart"]
SETTINGS = [
    GenerateSection(),
    GenerateSection(temperature=1.0),
    GenerateSection(temperature=0.8, top_k=20, sampling_seed=3),
    GenerateSection(temperature=1.5, top_p=0.9, sampling_seed=4),
]


@pytest.fixture
def built(tiny_model: Callable[..., Any], tokenizer: Any) -> Callable[[str], Any]:
    """A tiny random model of any kind, encoder-decoders too."""

    def build(kind: str) -> Any:
        if kind not in ("t5", "bart"):
            return tiny_model(kind)
        torch.manual_seed(0)
        sizes = {"t5": T5, "bart": BART}[kind] | {"vocab_size": len(tokenizer)}
        config = AutoConfig.for_model(kind, **sizes, decoder_start_token_id=2, pad_token_id=1)
        return AutoModelForSeq2SeqLM.from_config(config).eval()

    return build


def request(tokenizer: Any, prompt: list[int], room: int = 8, **more: Any) -> Request:
    answer = Answer(tokenizer, prompt, AnswerRule([0], ["zz"], room))
    return Request(prompt, answer, more.pop("settings", SETTINGS[0]), **more)


def some_requests(tokenizer: Any, n: int, seed: int) -> list[Request]:
    """n requests of every kind; prompts of 1 to 40 tokens, some beginning as others do."""
    draw = random.Random(seed)
    common = [draw.randrange(3, 300) for _ in range(20)]
    found = []
    for i in range(n):
        prompt = common[: draw.choice([0, 0, 7, 20])] + [draw.randrange(3, 300) for _ in range(draw.randrange(1, 20))]
        more = (
            {"presence_penalty": 0.7}
            if i % 7 == 1
            else {"repetition_penalty": 1.3, "min_p": 0.02}
            if i % 7 == 2
            else {}
        )
        wish = {"settings": draw.choice(SETTINGS), "number": draw.randrange(3), **more}
        found.append(request(tokenizer, prompt, draw.randrange(1, 25), **wish))
    return found


def alone(model: Any, tokenizer: Any, wanted: list[Request]) -> list[list[int]]:
    found = []
    for one in wanted:
        fresh = Answer(tokenizer, one.prompt, AnswerRule([0], ["zz"], one.answer.room))
        answer_all(Engine(model), [Request(**{**vars(one), "answer": fresh})])
        found.append(fresh.ids)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_rows", [3, 64])
def test_rows_that_come_and_go_are_answered_as_each_alone(
    kind: str, max_rows: int, built: Callable[[str], Any], tokenizer: Any
) -> None:
    """Requests of all settings enter at random steps, and some are removed half way."""
    model, draw = built(kind), random.Random(max_rows)
    wanted = some_requests(tokenizer, 24, seed=1)
    engine, coming, rows = Engine(model, max_rows=max_rows), list(wanted), list[Row]()
    removed: set[Row] = set()
    while coming or engine.busy:
        for _ in range(draw.randrange(4)):
            if coming:
                rows.append(engine.add(coming.pop(0)))
        if draw.random() < 0.1 and rows:
            removed.add(chosen := draw.choice(rows))
            engine.remove(chosen)
        steps = engine.step()
        assert len({step.row for step in steps}) == len(steps) <= max_rows
        assert not removed & {step.row for step in steps}
    expected = alone(model, tokenizer, wanted)
    for row, one, ids in zip(rows, wanted, expected, strict=True):
        assert one.answer.ids == (ids[: len(one.answer.ids)] if row in removed else ids)
        assert row in removed or one.answer.ended
    assert sum(bool(one.answer.ended) for one in wanted) > 15


def test_first_come_first_served(built: Callable[[str], Any], tokenizer: Any) -> None:
    engine = Engine(built("gpt2"), max_rows=2)
    rows = [engine.add(request(tokenizer, [5 + i], 3)) for i in range(5)]
    assert (engine.n_rows, engine.n_waiting, engine.busy) == (0, 5, True)
    first = [step.row for step in engine.step()]
    assert first == rows[:2] and (engine.n_rows, engine.n_waiting) == (2, 3)
    engine.remove(rows[2])
    engine.remove(rows[0])
    assert (engine.n_rows, engine.n_waiting) == (1, 2)
    seen = [row for _ in range(9) for row in sorted({step.row for step in engine.step()}, key=rows.index)]
    assert rows[2] not in seen and not engine.busy and engine.step() == []
    assert seen.index(rows[3]) < seen.index(rows[4])


def test_a_removed_row_gets_nothing_more(built: Callable[[str], Any], tokenizer: Any) -> None:
    engine = Engine(built("llama"))
    one, other = (engine.add(request(tokenizer, [n, 6], 10)) for n in (5, 9))
    engine.step()
    engine.remove(one)
    assert [step.row for step in engine.step()] == [other]
    assert len(one.tokens) == 1 and one.request.answer.ended is None


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "t5"])
def test_logprobs_are_those_of_the_models_own_scores(kind: str, built: Callable[[str], Any], tokenizer: Any) -> None:
    """Whatever penalties and temperature make of them afterwards."""
    model, prompt = built(kind), [5, 6, 7]
    wanted = request(tokenizer, prompt, 6, settings=SETTINGS[2], logprobs=4, presence_penalty=1.0, logit_bias={9: 3.0})
    steps = list(Engine(model).run(wanted))
    tokens = [step.token for step in steps]
    with torch.no_grad():
        if kind == "t5":
            scores = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[2, *tokens[:-1]]])).logits
        else:
            scores = model(torch.tensor([prompt + tokens[:-1]])).logits[:, len(prompt) - 1 :]
    expected = scores[0].log_softmax(-1)
    for step, row in zip(steps, expected, strict=True):
        assert step.logprob == pytest.approx(float(row[step.token]), abs=1e-4)
        best = row.topk(4)
        assert step.top is not None and [id for id, _ in step.top] == best.indices.tolist()
        assert [value for _, value in step.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    only = list(Engine(model).run(request(tokenizer, prompt, 2, logprobs=0)))
    assert [step.top for step in only] == [[], []] and all(step.logprob is not None for step in only)
    assert next(iter(Engine(model).run(request(tokenizer, prompt, 1)))).logprob is None


def test_biases_and_penalties_change_what_is_drawn(built: Callable[[str], Any], tokenizer: Any) -> None:
    def ids(**more: Any) -> list[int]:
        wanted = request(tokenizer, [5, 6, 7], 12, **more)
        answer_all(Engine(built("gpt2")), [wanted])
        return wanted.answer.ids

    plain = ids()
    assert ids(logit_bias={33: 1e4}) == [33] * 12
    assert plain[0] not in ids(logit_bias={plain[0]: -1e4})
    assert len(set(ids(presence_penalty=1e4))) == 12, "each token once"
    assert len(set(ids(frequency_penalty=1e4))) == 12
    assert not {5, 6, 7} & set(ids(repetition_penalty=1e4)), "also those of the prompt"
    warm = GenerateSection(temperature=2.0)
    assert ids(settings=warm, min_p=1.0) == plain, "only the likeliest is left"
    assert ids(settings=warm) != plain


def test_a_closed_run_leaves_the_engine(built: Callable[[str], Any], tokenizer: Any) -> None:
    engine = Engine(built("gpt2"))
    steps = engine.run(request(tokenizer, [5], 9))
    next(steps)
    steps.close()
    assert not engine.busy
