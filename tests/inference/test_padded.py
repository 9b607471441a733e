"""Decoding by transformers' own forward pass: its own greedy answers, rows that leave, and nothing read twice."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.inference.engine import Engine, Request, answer_all
from hone.inference.padded import bytes_per_token
from hone.inference.stream import Answer, AnswerRule
from hone.inference.weights import Unsuitable
from tiny_tasks import BART, T5

ARCHITECTURES = ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "gemma2"]
PROMPTS = [[5, 6, 7, 8], [9], list(range(20, 60)), [11, 12], [13] * 17]
GREEDY = GenerateSection(temperature=0.0)


def requests(tokenizer: Any, prompts: Sequence[list[int]], rooms: Sequence[int]) -> list[Request]:
    answers = [Answer(tokenizer, prompt, AnswerRule([], [], room)) for prompt, room in zip(prompts, rooms)]
    return [Request(prompt, answer, GREEDY) for prompt, answer in zip(prompts, answers)]


def grown(engine: Engine, tokenizer: Any, prompts: Sequence[list[int]], rooms: Sequence[int]) -> list[list[int]]:
    asked = requests(tokenizer, prompts, rooms)
    answer_all(engine, asked)
    return [request.answer.ids for request in asked]


def by_transformers(model: Any, prompt: list[int], room: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False, eos_token_id=-1
    )
    return [int(token) for token in out[0, len(prompt) :]]


@pytest.fixture(autouse=True)
def without_the_fast_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.inference import engine

    def unsuitable(model: Any) -> Any:
        raise Unsuitable("not here")

    monkeypatch.setattr(engine, "weights_of", unsuitable)


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of every forward pass."""
    from hone.inference import padded

    seen: list[tuple[int, int]] = []
    plain = padded._Batch.scores

    def spied(batch: Any) -> Any:
        read = batch._read if batch._cache is not None else 0
        scores = plain(batch)
        seen.append((len(batch._ids), batch._ids.shape[1] - read))
        return scores

    monkeypatch.setattr(padded._Batch, "scores", spied)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_transformers(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any, widths: list[tuple[int, int]]
) -> None:
    """Five prompts of 1 to 40 tokens, padded on the left, that end after 3 to 12 tokens each."""
    model, rooms = tiny_model(architecture), [12, 3, 5, 9, 4]
    expected = [by_transformers(model, prompt, room) for prompt, room in zip(PROMPTS, rooms)]
    assert grown(Engine(model), tokenizer, PROMPTS, rooms) == expected
    assert widths[0] == (5, 40) and widths[-1][0] == 1, "rows that have ended leave the batch"
    assert all(n == 1 for _, n in widths[1:]), "one token a step"


@pytest.mark.parametrize("forced", [None, 3])
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_writes_what_transformers_lets_it(kind: str, forced: int | None, tokenizer: Any) -> None:
    """Sources of 1 to 40 tokens in one batch, padded: BART's encoder has learned positions, T5's relative ones."""
    torch.manual_seed(0)
    sizes = {"t5": T5, "bart": BART}[kind] | {"vocab_size": len(tokenizer)}
    config = AutoConfig.for_model(kind, **sizes, decoder_start_token_id=2, pad_token_id=1, forced_bos_token_id=forced)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    for name, parameter in model.named_parameters():  # random weights hardly look at the source
        parameter.data *= 30 if "encoder_attn" in name or "EncDecAttention" in name else 3 if "weight" in name else 1
    model.generation_config.eos_token_id = None
    model.generation_config.forced_eos_token_id = None
    model.generation_config.forced_bos_token_id = forced
    answers = []
    for prompt in PROMPTS:
        whole = model.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False, num_beams=1)[0].tolist()
        assert whole[0] == 2 and forced in (None, whole[1])
        answers.append(whole[1 if forced is None else 2 :])
    assert len({tuple(answer) for answer in answers}) > 1, "the sources differ, and so must the answers"
    room = len(answers[0])
    assert grown(Engine(model), tokenizer, PROMPTS, [room] * 5) == answers


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama"])
def test_a_row_that_has_filled_its_window_waits_for_others(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any
) -> None:
    """256 positions: one row of nine ends there, and stays in the batch as long as the others are too many to move."""
    model = tiny_model(architecture)
    prompts, rooms = [[5] * 252, *([n, 7] for n in range(8))], [4, *[12] * 8]
    expected = [by_transformers(model, prompt, room) for prompt, room in zip(prompts, rooms)]
    assert grown(Engine(model), tokenizer, prompts, rooms) == expected


def test_a_model_without_a_cache_of_keys_reads_everything_again(
    tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch, widths: list[tuple[int, int]]
) -> None:
    from hone.inference import padded

    model = tiny_model("llama")
    expected = by_transformers(model, PROMPTS[0], 6)
    plain = padded.takes
    monkeypatch.setattr(padded, "takes", lambda model, name: name != "past_key_values" and plain(model, name))
    assert grown(Engine(model), tokenizer, PROMPTS[:1], [6]) == [expected]
    assert [n for _, n in widths] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_what_was_read_is_not_read_again(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any, widths: list[tuple[int, int]]
) -> None:
    """A conversation: each prompt begins with the one before and its answer; then one that begins otherwise."""
    model, prompt = tiny_model(architecture), list(range(10, 40))
    engine = Engine(model)
    for _ in range(3):
        [answer] = grown(engine, tokenizer, [prompt], [5])
        assert answer == by_transformers(model, prompt, 5)
        prompt = [*prompt, *answer, 3, 4]
    assert [n for _, n in widths if n > 1] == [30, 3, 3], "the last token of an answer, and what is new"
    other = [10, 11, 12, 50, 51]
    assert grown(engine, tokenizer, [other], [5]) == [by_transformers(model, other, 5)]
    assert [n for _, n in widths if n > 1][-1] == 2


def test_an_interrupted_answer_leaves_nothing_to_go_on_from(
    tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gpt2")
    engine = Engine(model)
    grown(engine, tokenizer, [[5, 6, 7]], [3])
    monkeypatch.setattr(model.transformer.h[1], "forward", interrupt)  # the first block has written its keys by then
    with pytest.raises(KeyboardInterrupt):
        list(engine.run(requests(tokenizer, [[5, 6, 7, 8]], [3])[0]))
    monkeypatch.undo()
    assert not engine.busy
    assert grown(engine, tokenizer, [[5, 6, 7, 8]], [3]) == [by_transformers(model, [5, 6, 7, 8], 3)]


def interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_scores_that_are_no_numbers(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    model.transformer.ln_f.weight.data.fill_(float("nan"))
    with pytest.raises(HoneError, match="not numbers"):
        grown(Engine(model), tokenizer, [[5]], [3])


def test_a_batch_holds_as_many_rows_as_memory_allows(
    tiny_model: Callable[..., Any], tokenizer: Any, widths: list[tuple[int, int]]
) -> None:
    """Prompts of like length together; one alone, however little memory there is."""
    model = tiny_model("llama")
    prompts = [[7] * n for n in (9, 2, 7, 2, 5)] * 4
    token = bytes_per_token(model)
    assert token == 2 * 2 * 16 * 4, "keys and values, two layers, one head of 16, float32"
    for room, most in ((token * 6 * 8, 8), (10**9, 20), (1, 1)):
        widths.clear()
        grown(Engine(model, cache_bytes=room), tokenizer, prompts, [4] * 20)
        assert max(n for n, _ in widths) == most and widths[0] == (most, 2 if most < 20 else 9)


def test_a_model_that_counts_positions_itself_gets_rows_of_equal_length(
    tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch, widths: list[tuple[int, int]]
) -> None:
    from hone.inference import padded

    model, plain = tiny_model("llama"), padded.takes
    prompts = [[5, 6], [7, 8, 9], [8, 9], [1]]
    expected = [by_transformers(model, prompt, 3) for prompt in prompts]
    monkeypatch.setattr(padded, "takes", lambda model, name: name != "position_ids" and plain(model, name))
    assert grown(Engine(model), tokenizer, prompts, [3] * 4) == expected
    assert sorted(found for found in widths if found[1] > 1) == [(1, 3), (2, 2)]
