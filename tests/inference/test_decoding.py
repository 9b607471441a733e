"""The loop that grows answers: transformers' own greedy answers, rows that leave, and nothing read twice."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.inference.decoding import MOST_ROWS, Past, batches, decode, rows_that_fit
from hone.inference.stream import Answer, AnswerRule
from tiny_tasks import BART, T5

ARCHITECTURES = ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "gemma2"]
PROMPTS = [[5, 6, 7, 8], [9], list(range(20, 60)), [11, 12], [13] * 17]
GREEDY = GenerateSection(temperature=0.0)


def grown(model: Any, tokenizer: Any, prompts: Sequence[list[int]], rooms: Sequence[int], **more: Any) -> Any:
    answers = [Answer(tokenizer, prompt, AnswerRule([], [], room)) for prompt, room in zip(prompts, rooms)]
    decode(model, answers, prompts, GREEDY, [0] * len(prompts), **more)
    return [answer.ids for answer in answers]


def by_transformers(model: Any, prompt: list[int], room: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False, eos_token_id=-1
    )
    return [int(token) for token in out[0, len(prompt) :]]


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of every forward pass."""
    from hone.inference import decoding

    seen: list[tuple[int, int]] = []
    plain = decoding._Rows.scores

    def spied(rows: Any) -> Any:
        seen.append((len(rows.ids), rows.ids.shape[1] - (rows.read if rows.cache is not None else 0)))
        return plain(rows)

    monkeypatch.setattr(decoding._Rows, "scores", spied)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_transformers(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any, widths: list[tuple[int, int]]
) -> None:
    """Five prompts of 1 to 40 tokens, padded on the left, that end after 3 to 12 tokens each."""
    model, rooms = tiny_model(architecture), [12, 3, 5, 9, 4]
    expected = [by_transformers(model, prompt, room) for prompt, room in zip(PROMPTS, rooms)]
    assert grown(model, tokenizer, PROMPTS, rooms) == expected
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
    assert grown(model, tokenizer, PROMPTS, [room] * 5) == answers


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama"])
def test_a_row_that_has_filled_its_window_waits_for_others(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any
) -> None:
    """256 positions: one row of nine ends there, and stays in the batch as long as the others are too many to move."""
    model = tiny_model(architecture)
    prompts, rooms = [[5] * 252, *([n, 7] for n in range(8))], [4, *[12] * 8]
    expected = [by_transformers(model, prompt, room) for prompt, room in zip(prompts, rooms)]
    assert grown(model, tokenizer, prompts, rooms) == expected


def test_a_model_without_a_cache_of_keys_reads_everything_again(
    tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch, widths: list[tuple[int, int]]
) -> None:
    from hone.inference import decoding

    model = tiny_model("llama")
    expected = by_transformers(model, PROMPTS[0], 6)
    plain = decoding.takes
    monkeypatch.setattr(decoding, "takes", lambda model, name: name != "past_key_values" and plain(model, name))
    assert grown(model, tokenizer, PROMPTS[:1], [6]) == [expected]
    assert [n for _, n in widths] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_what_was_read_is_not_read_again(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any, widths: list[tuple[int, int]]
) -> None:
    """A conversation: each prompt begins with the one before and its answer; then one that begins otherwise."""
    model, past, prompt = tiny_model(architecture), Past(), list(range(10, 40))
    for _ in range(3):
        [answer] = grown(model, tokenizer, [prompt], [5], past=past)
        assert answer == by_transformers(model, prompt, 5)
        prompt = [*prompt, *answer, 3, 4]
    assert [n for _, n in widths if n > 1] == [30, 3, 3], "the last token of an answer, and what is new"
    other = [10, 11, 12, 50, 51]
    assert grown(model, tokenizer, [other], [5], past=past) == [by_transformers(model, other, 5)]
    assert [n for _, n in widths if n > 1][-1] == 2


def test_an_interrupted_answer_leaves_nothing_to_go_on_from(
    tiny_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, past = tiny_model("gpt2"), Past()
    grown(model, tokenizer, [[5, 6, 7]], [3], past=past)
    monkeypatch.setattr(model.transformer.h[1], "forward", interrupt)  # the first block has written its keys by then
    with pytest.raises(KeyboardInterrupt):
        grown(model, tokenizer, [[5, 6, 7, 8]], [3], past=past)
    monkeypatch.undo()
    assert grown(model, tokenizer, [[5, 6, 7, 8]], [3], past=past) == [by_transformers(model, [5, 6, 7, 8], 3)]


def interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def test_scores_that_are_no_numbers(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    model.transformer.ln_f.weight.data.fill_(float("nan"))
    with pytest.raises(HoneError, match="not numbers"):
        grown(model, tokenizer, [[5]], [3])


def test_batches_hold_rows_of_like_length_as_memory_allows(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    rows = [[0] * n for n in (9, 2, 7, 2, 5)]
    assert list(batches(model, rows, 4)) == [[1, 3, 4, 2, 0]]
    assert rows_that_fit(model, 100) == MOST_ROWS and rows_that_fit(model, 10**9) == 1
    assert [len(batch) for batch in batches(model, rows * 40, 4)] == [64, 64, 64, 8]
