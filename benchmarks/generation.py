"""Generation measured: hone's batches beside transformers' `generate`, the same greedy answers to the same prompts.

The model has random weights (it never ends by itself, so lengths are given), the prompts are cut from Python's own
library at uneven lengths, and every other prompt's answer has half as many tokens. Each way answers all prompts, in
turn with the others; the answers are compared token by token. Nothing is downloaded.

    python benchmarks/generation.py
    python benchmarks/generation.py --shape '{"n_layer": 12, "n_embd": 768, "n_head": 12}' --prompts 32
"""

import argparse
import ast
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = {"n_layer": 6, "n_embd": 384, "n_head": 6, "n_positions": 512, "vocab_size": 8192}
Ids = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description="hone's generation beside transformers' own")
    parser.add_argument("--shape", type=json.loads, default={}, help="other numbers for the GPT-2")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new", type=int, default=96, help="tokens of an answer, half of them for every other prompt")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = build({**SMALL, **options.shape})
    prompts = cut_prompts(options.prompts, model.config.vocab_size)
    rooms = [options.new if i % 2 else options.new // 2 for i in range(len(prompts))]
    ways: dict[str, Callable[[], Ids]] = {
        "generate, one prompt at a time": lambda: one_by_one(model, prompts, rooms),
        "generate, batches of 16": lambda: in_batches(model, prompts, rooms, 16),
        "generate, batches of 64": lambda: in_batches(model, prompts, rooms, 64),
        "hone, one prompt at a time": lambda: with_hone(model, prompts, rooms, one_by_one=True),
        "hone": lambda: with_hone(model, prompts, rooms),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Ids] = {}
    for turn in range(options.rounds):
        for name, way in list(ways.items())[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            answers[name] = way()
            rates[name].append(sum(map(len, answers[name])) / (time.perf_counter() - began))
    report(model, prompts, rates, answers)


def build(shape: dict[str, Any]) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, pad_token_id=0)).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # random weights say the same token for ever; larger ones wander
    return model


def cut_prompts(n: int, vocab_size: int) -> Ids:
    """Bytes of the standard library's text, 20 to 150 of them, as ids."""
    text = Path(ast.__file__).read_bytes()
    draw = random.Random(0)
    starts = [(draw.randrange(len(text) - 200), draw.randrange(20, 150)) for _ in range(n)]
    return [[1 + byte % (vocab_size - 1) for byte in text[a : a + length]] for a, length in starts]


def one_by_one(model: Any, prompts: Ids, rooms: list[int]) -> Ids:
    return [row for prompt, room in zip(prompts, rooms) for row in in_batches(model, [prompt], [room], 1)]


def in_batches(model: Any, prompts: Ids, rooms: list[int], size: int) -> Ids:
    """transformers' generate on prompts in the order given, padded on the left; all rows run to the longest room."""
    import torch

    answers: Ids = []
    for a in range(0, len(prompts), size):
        rows, room = prompts[a : a + size], max(rooms[a : a + size])
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=room, min_new_tokens=room, do_sample=False, use_cache=True
            )
        answers += [row[width : width + room].tolist() for row, room in zip(out, rooms[a : a + size])]
    return answers


def with_hone(model: Any, prompts: Ids, rooms: list[int], *, one_by_one: bool = False) -> Ids:
    """hone's own order and batches, as `generate_texts` makes them."""
    from hone.config.sections.generate import GenerateSection
    from hone.inference.engine import Engine, Request, answer_all
    from hone.inference.stream import Answer, AnswerRule

    settings = GenerateSection(max_new_tokens=max(rooms), temperature=0.0)
    answers = [Answer(_Numbers(), row, AnswerRule([], [], room)) for row, room in zip(prompts, rooms)]
    requests = [Request(prompt, answer, settings) for prompt, answer in zip(prompts, answers)]
    engine = Engine(model)
    for together in [[one] for one in requests] if one_by_one else [requests]:
        answer_all(engine, together)
    return [answer.ids for answer in answers]


class _Numbers:
    """A tokenizer for ids that mean nothing."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def report(model: Any, prompts: Ids, rates: dict[str, list[float]], answers: dict[str, Ids]) -> None:
    import torch
    import transformers

    first = next(iter(rates))
    print(f"\n{model.num_parameters():,} parameters, float32, {len(prompts)} prompts of {min(map(len, prompts))} to")
    print(f"{max(map(len, prompts))} tokens, {sum(map(len, answers[first])):,} new ones; torch {torch.__version__},")
    print(f"transformers {transformers.__version__}, {torch.get_num_threads()} threads\n")
    print("| | tokens/s: median (spread) | x generate, one at a time | tokens that differ |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates[first]))
        differ = sum(a != b for one, two in zip(answers[first], answers[name]) for a, b in zip(one, two, strict=True))
        spread = f"{statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})"
        print(f"| {name} | {spread} | {ratio:.1f} | {differ} |")


if __name__ == "__main__":
    main()
