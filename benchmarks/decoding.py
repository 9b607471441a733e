"""Decoding measured: tokens a second and time to the first token, beside transformers' `generate` and llama.cpp.

Models have the shapes of known ones and random weights; nothing is downloaded. The same greedy tokens are drawn from
the same prompts on every side, in alternation, and each side's own tokens are counted. "limit" is what memory would
allow if each weight were read once a step. llama.cpp (`pip install llama-cpp-python gguf`) reads the same weights from
a file that hone writes; without it its side is left out.

    python benchmarks/decoding.py
    python benchmarks/decoding.py --shapes gpt2 --rows 1 16 --rounds 5
    python benchmarks/decoding.py --cpu-time
    python benchmarks/decoding.py --shapes hone-base --rows --many 32

`--many`: answers of uneven length to prompts of uneven length, as fast as each side can give all of them.
"""

import argparse
import copy
import importlib.util
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[1] / "src/hone/assets"
SHAPES = {
    "hone-base": ASSETS / "base",
    "gpt2": ASSETS / "shapes/gpt2",
    "smollm2-135m": ASSETS / "shapes/HuggingFaceTB--SmolLM2-135M",
    "qwen2-0.5b": ASSETS / "shapes/Qwen--Qwen2-0.5B",
}
PROMPT = 32  # tokens before those that are counted
Clock = Callable[[], float]
Side = Callable[[list[list[int]], int], tuple[float, list[list[int]]]]  # -> seconds, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description="decoding beside transformers and llama.cpp")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 16, 64])
    parser.add_argument("--many", type=int, default=0, help="prompts of uneven length that are answered together")
    parser.add_argument("--kinds", nargs="*", default=["f32", "f16", "q8_0"], help="of llama.cpp's files")
    parser.add_argument("--new", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--first", type=int, default=1000, help="tokens of the prompt for the time to the first token")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cpu-time", action="store_true", help="of one thread: ratios that other work does not disturb"
    )
    options = parser.parse_args()
    options.clock = time.thread_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        import torch

        torch.set_num_threads(1)
    if importlib.util.find_spec("llama_cpp") is None:
        print("llama.cpp is left out: llama-cpp-python is not installed")
        options.kinds = []
    print("| model | rows | side | tokens/s: median (spread) | x generate | x llama.cpp f32 | same tokens |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for shape in options.shapes:
        model = build(SHAPES[shape])
        with tempfile.TemporaryDirectory() as folder:
            files = {kind: write(model, Path(folder) / f"{kind}.gguf", kind) for kind in options.kinds}
            for rows in options.rows:
                measure_rows(shape, model, files, rows, options)
            if options.rows:
                measure_first(shape, model, files, options)
            if options.many:
                measure_many(shape, model, options)


def measure_rows(shape: str, model: Any, files: dict[str, Path], rows: int, options: Any) -> None:
    """A table's rows: all sides decode `rows` answers together."""
    prompts = some_prompts(rows, PROMPT, model.config.vocab_size)
    sides = all_sides(
        model, files if rows == 1 else {k: f for k, f in files.items() if k == "f32"}, rows, options.clock
    )
    seconds, tokens = alternate(sides, prompts, options.new, options.rounds)
    for name, found in seconds.items():
        rates = [rows * (options.new - 1) / one for one in found]
        same = sum(a == b for x, y in zip(tokens["hone"], tokens[name]) for a, b in zip(x, y))
        print(
            f"| {shape} | {rows} | {name} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
            f"| {ratio(seconds, 'generate', name)} | {ratio(seconds, 'llama.cpp f32', name)} "
            f"| {same} of {rows * options.new} |",
            flush=True,
        )
    if rows == 1:
        print(f"| {shape} | 1 | limit of memory, float32 | {memory_limit(model):,.0f} | | | |", flush=True)


def measure_first(shape: str, model: Any, files: dict[str, Path], options: Any) -> None:
    """Time to the first token of one long prompt."""
    from hone.models.inspect import max_positions

    length = min(options.first, (max_positions(model) or options.first) - 2)
    files = {kind: file for kind, file in files.items() if kind == "f32"}
    prompts = some_prompts(1, length, model.config.vocab_size)
    seconds, _ = alternate(all_sides(model, files, 1, options.clock), prompts, 1, options.rounds)
    for name, found in seconds.items():
        milliseconds = (
            f"{1000 * statistics.median(found):,.0f} ms ({1000 * min(found):,.0f} to {1000 * max(found):,.0f})"
        )
        print(
            f"| {shape} | 1 | {name}: first token after {length} | {milliseconds} "
            f"| {ratio(seconds, 'generate', name)} | {ratio(seconds, 'llama.cpp f32', name)} | |",
            flush=True,
        )


def measure_many(shape: str, model: Any, options: Any) -> None:
    """Prompts of 20 to 149 tokens, every other answer half as long; hone sorts and batches by itself."""
    draw = random.Random(0)
    prompts = [some_prompts(1, draw.randrange(20, 150), model.config.vocab_size)[0] for _ in range(options.many)]
    rooms = [options.new if i % 2 else max(1, options.new // 2) for i in range(len(prompts))]
    sides: dict[str, Side] = {
        "generate": lambda prompts, _: in_batches(model, prompts, rooms, 1, options.clock),
        "generate, batches of 16": lambda prompts, _: in_batches(model, prompts, rooms, 16, options.clock),
        "generate, batches of 64": lambda prompts, _: in_batches(model, prompts, rooms, 64, options.clock),
        "hone": lambda prompts, _: all_by_hone(model, prompts, rooms, options.clock),
    }
    seconds, tokens = alternate(sides, prompts, options.new, options.rounds)
    for name, found in seconds.items():
        rates = [sum(rooms) / one for one in found]
        same = sum(a == b for x, y in zip(tokens["generate"], tokens[name]) for a, b in zip(x, y))
        print(
            f"| {shape} | {len(prompts)} uneven | {name} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to "
            f"{max(rates):,.0f}) | {ratio(seconds, 'generate', name)} | | {same} of {sum(rooms)} |",
            flush=True,
        )


def ratio(seconds: dict[str, list[float]], other: str, name: str) -> str:
    """How many times as fast as the other side, round by round: the median."""
    if other not in seconds:
        return ""
    return f"{statistics.median(b / a for a, b in zip(seconds[name], seconds[other])):.2f}"


def alternate(sides: dict[str, Side], prompts: list[list[int]], new: int, rounds: int) -> Any:
    """Seconds of each round of each side, and its tokens; in turn, forwards and backwards; a warm-up before."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tokens: dict[str, list[list[int]]] = {}
    for turn in range(rounds + 1):
        for name, side in list(sides.items())[:: -1 if turn % 2 else 1]:
            took, tokens[name] = side(prompts, new)
            if turn:
                seconds[name].append(took)
    return seconds, tokens


def all_sides(model: Any, files: dict[str, Path], rows: int, clock: Clock) -> dict[str, Side]:
    import torch

    sides: dict[str, Side] = {"generate": lambda prompts, n: by_generate(model, prompts, n, clock)}
    sides["hone"] = lambda prompts, n: by_hone(model, prompts, n, clock)
    if rows == 1:  # its numbers are rounded, so are its tokens: other ones
        half = copy.deepcopy(model).to(torch.bfloat16)
        sides["hone, bfloat16 weights"] = lambda prompts, n: by_hone(half, prompts, n, clock)
    for kind, file in files.items():
        sides[f"llama.cpp {kind}"] = Llama(file, rows, clock).answer
    return sides


def build(folder: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data *= (
            3 if parameter.dim() > 1 else 1
        )  # random weights say the same token for ever; larger ones wander
    model.generation_config.eos_token_id = None
    return model


def some_prompts(rows: int, length: int, vocab_size: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(vocab_size) for _ in range(length)] for _ in range(rows)]


def memory_limit(model: Any) -> float:
    """Steps a second if each weight is read once: bytes a second of a long sum over the bytes of the weights."""
    import torch

    numbers = torch.ones(1 << 26)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        numbers.sum()
        rates.append(numbers.nbytes / (time.perf_counter() - began))
    table = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is table
    read = sum(p.numel() for p in model.parameters()) - (0 if tied else table.numel())
    return max(rates) / (4 * read)


def by_generate(model: Any, prompts: list[list[int]], new: int, clock: Clock) -> tuple[float, list[list[int]]]:
    import torch
    from transformers import LogitsProcessor

    class Begun(LogitsProcessor):
        began = 0.0

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            self.began = self.began or clock()  # the prompts have been read
            return scores

    ids, begun = torch.tensor(prompts), Begun()
    began = clock()
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            logits_processor=[begun],
        )
    return clock() - (begun.began if new > 1 else began), out[:, ids.shape[1] :].tolist()


class Numbers:
    """A tokenizer for ids that mean nothing."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def by_hone(model: Any, prompts: list[list[int]], new: int, clock: Clock) -> tuple[float, list[list[int]]]:
    from hone.config.sections.generate import GenerateSection
    from hone.inference.engine import Engine, Request
    from hone.inference.stream import Answer, AnswerRule

    tokenizer: Any = Numbers()
    requests = [Request(p, Answer(tokenizer, p, AnswerRule([], [], new)), GenerateSection()) for p in prompts]
    engine = Engine(model, lookup=False)  # tokens of random weights repeat themselves: guessing would be too easy
    list(engine.run(Request([1, 2], Answer(tokenizer, [], AnswerRule([], [], 1)), GenerateSection())))  # the check
    for request in requests:
        engine.add(request)
    began = clock()
    while new > 1 and engine.n_waiting + any(not request.answer.ids for request in requests):
        engine.step()
    read = [len(request.answer.ids) for request in requests]
    began = clock() if new > 1 else began
    while engine.busy:
        engine.step()
    seconds = clock() - began
    share = (new - 1) * len(prompts) / max(1, sum(new - n for n in read))  # some rows began while others were read
    return seconds * (share if new > 1 else 1.0), [request.answer.ids for request in requests]


def in_batches(
    model: Any, prompts: list[list[int]], rooms: list[int], size: int, clock: Clock
) -> tuple[float, list[list[int]]]:
    """generate on prompts in the order given, padded on the left; all rows of a batch run to the longest room."""
    import torch

    answers: list[list[int]] = []
    began = clock()
    for a in range(0, len(prompts), size):
        rows, room = prompts[a : a + size], max(rooms[a : a + size])
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, max_new_tokens=room, do_sample=False)
        answers += [row[width : width + n].tolist() for row, n in zip(out, rooms[a : a + size])]
    return clock() - began, answers


def all_by_hone(model: Any, prompts: list[list[int]], rooms: list[int], clock: Clock) -> tuple[float, list[list[int]]]:
    from hone.config.sections.generate import GenerateSection
    from hone.inference.engine import Engine, Request, answer_all
    from hone.inference.stream import Answer, AnswerRule

    tokenizer: Any = Numbers()
    answers = [Answer(tokenizer, row, AnswerRule([], [], room)) for row, room in zip(prompts, rooms)]
    began = clock()
    answer_all(
        Engine(model, lookup=False), [Request(p, answer, GenerateSection()) for p, answer in zip(prompts, answers)]
    )
    return clock() - began, [answer.ids for answer in answers]


# ---- llama.cpp -------------------------------------------------------------------------------------------------------


def write(model: Any, path: Path, kind: str) -> Path:
    """The model as a GGUF file with a vocabulary of numbers."""
    from hone.convert.gguf_file import Prompt, write_gguf
    from hone.convert.gguf_tokenizer import Vocabulary

    size = model.config.vocab_size
    vocabulary = Vocabulary("gpt-2", False, [f"t{i}" for i in range(size)], [1] * size, ["t 0"], {"eos": 0}, [])
    write_gguf(model, vocabulary, path, kind, Prompt("", False), name="benchmark")
    return path


class Llama:
    """llama.cpp's own decoding of several rows in one batch, greedy; keys and values in float32."""

    def __init__(self, path: Path, rows: int, clock: Clock) -> None:
        import llama_cpp
        import torch

        self.cpp, self.clock = llama_cpp, clock
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(silent, None)
        self._silent = silent
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_seq_max, wanted.n_ctx = rows, max(1024, rows * 256)
        wanted.n_batch = wanted.n_ubatch = 1024
        wanted.n_threads = wanted.n_threads_batch = torch.get_num_threads()
        self.context = llama_cpp.llama_init_from_model(self.model, wanted)
        self.batch = llama_cpp.llama_batch_init(1024, 0, 1)
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def answer(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        cpp = self.cpp
        cpp.llama_memory_clear(cpp.llama_get_memory(self.context), True)
        began = self.clock()
        answers = [[self._decode([(t, i, row) for i, t in enumerate(p)])[0]] for row, p in enumerate(prompts)]
        if new == 1:
            return self.clock() - began, answers
        began = self.clock()
        for step in range(new - 1):
            found = self._decode(
                [(a[-1], len(p) + step, r) for r, (p, a) in enumerate(zip(prompts, answers))], all_=True
            )
            for answer, token in zip(answers, found):
                answer.append(token)
        return self.clock() - began, answers

    def _decode(self, tokens: list[tuple[int, int, int]], *, all_: bool = False) -> list[int]:
        """The likeliest tokens after (token, position, row): after each one, or after the last."""
        import numpy as np

        batch, n = self.batch, len(tokens)
        batch.n_tokens = n
        for i, (token, position, row) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, row
            batch.logits[i] = all_ or i == n - 1
        assert self.cpp.llama_decode(self.context, batch) == 0
        wanted = range(n) if all_ else [n - 1]
        scores = (self.cpp.llama_get_logits_ith(self.context, i) for i in wanted)
        return [int(np.ctypeslib.as_array(one, shape=(self.size,)).argmax()) for one in scores]

    def __del__(self) -> None:
        self.cpp.llama_free(self.context)
        self.cpp.llama_model_free(self.model)


if __name__ == "__main__":
    main()
