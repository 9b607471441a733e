"""A GGUF file compared with the model it was made of, by a reader that shares no code with its writer.

llama.cpp is the judge of everything: the ids of hostile texts, logits and perplexity on held-out items, greedy text.
Where llama-cpp-python is not installed, transformers reads the weights back, and the tokenizer stays unverified.

>>> found = check_gguf(path, "f16", model, tokenizer, vocabulary, items)  # doctest: +SKIP
>>> found.largest, found.kl                                                # doctest: +SKIP
(0.0102, 3.4e-07)
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from hone.convert.gguf_tokenizer import Vocabulary
from hone.convert.hostile_strings import hostile_strings
from hone.convert.llama_reader import Reader, installed, open_reader
from hone.data.tokenizer import start_ids
from hone.errors import HoneError

INSTALL = 'pip install "hone-lm[gguf-check]" (it compiles llama.cpp: ten minutes, and a C++ compiler)'
HOSTILE = 1_000
GREEDY_PROMPTS, GREEDY_TOKENS = 8, 40
SPREAD = 3.0  # standard deviation of the logits of the model that the bars were measured with (hone-base)


@dataclass(frozen=True)
class Bars:
    """What is accepted of a kind of file; None where it is only reported.

    logit: largest difference of any, for logits with the spread of `SPREAD`; in proportion for a wider one.
    kl: mean over positions. perplexity: relative.
    """

    logit: float | None
    kl: float | None
    perplexity: float


BARS = {
    "f32": Bars(0.02, 1e-6, 0.001),
    "f16": Bars(0.05, 1e-5, 0.001),
    "bf16": Bars(0.3, 2e-4, 0.003),
    "q8_0": Bars(None, 2e-3, 0.01),
}
GELU = {"f32": Bars(0.05, 1e-6, 0.001), "f16": Bars(0.1, 1e-5, 0.001)}  # llama.cpp looks GELU up in a table of f16
SAME_TEXT = ("f32", "f16")  # kinds whose greedy text has to be the run's


@dataclass(frozen=True)
class Item:
    """A text to compare on. counted: whether each id counts in the perplexity."""

    ids: list[int]
    counted: list[bool]

    @property
    def prompt(self) -> list[int]:
        """What stands before the first id that counts; of a text that counts from its beginning, its first half."""
        first = self.counted.index(True) if True in self.counted else len(self.ids)
        return self.ids[: first if first > 1 else max(1, len(self.ids) // 2)]


@dataclass(frozen=True)
class Checked:
    """What the comparison gave. reader: who read. n_texts: whose ids were compared; 0: the tokenizer was not read.

    n_equal_greedy counts equal texts; n_ties those that part where both tokens are as good, within rounding.
    """

    reader: str
    kind: str
    n_texts: int
    n_items: int
    n_tokens: int
    bars: Bars
    largest: float
    allowed: float | None
    kl: float
    agree: float
    perplexity_run: float
    perplexity_file: float
    n_greedy: int
    n_equal_greedy: int
    n_ties: int

    @property
    def whole(self) -> bool:
        """Weights and tokenizer."""
        return self.n_texts > 0

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def bars_of(kind: str, model_type: str) -> Bars:
    """What is accepted of a kind of file, for a type of model."""
    return GELU.get(kind, BARS[kind]) if model_type == "gpt2" else BARS[kind]


def check_gguf(
    path: Path,
    kind: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    items: Sequence[Item],
    n_hostile: int = HOSTILE,
) -> Checked:
    """Read `path` and compare it with `model`, in float32, that it was made of.

    Raises:
        HoneError: a bar is missed, or the reader does not read the file.
    """
    longest = max(*(len(item.ids) for item in items), *(len(_shortened(i, model)) + _room(model) for i in items))
    if not installed():
        other = _transformers_reader(path, model)
        return _compare(f"transformers ({path.name})", other, kind, model, items, 0)
    with open_reader(path, longest) as reader:
        n_texts = _compare_ids(reader, tokenizer, vocabulary, items, n_hostile)
        name = f"llama.cpp (llama-cpp-python {reader.about['version']})"
        return _compare(name, reader, kind, model, items, n_texts)


# ---- ids -------------------------------------------------------------------------------------------------------------


def _compare_ids(
    reader: Reader,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    items: Sequence[Item],
    n_hostile: int,
) -> int:
    """How many texts were compared, with special tokens in them parsed and not; and their ids back to text."""
    texts = [*hostile_strings(n_hostile), *(tokenizer.decode(item.ids) for item in items)]
    if vocabulary.nfc:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    for special in (False, True):
        expected = start_ids(tokenizer, texts, special=special)
        for text, ours, theirs in zip(texts, expected, reader.ids(texts, special=special), strict=True):
            if ours != theirs:
                where = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
                raise HoneError(
                    f"llama.cpp cuts {text[:60]!r} differently: at token {where} it has {theirs[where : where + 4]}, "
                    f"the run {ours[where : where + 4]}",
                    fix="nothing was written; use the run with hone, transformers or vLLM",
                )
    for text, back in zip(texts, reader.texts(expected), strict=True):
        if back.decode("utf-8", "replace") != text:
            fix = "nothing was written; use the run with hone, transformers or vLLM"
            raise HoneError(f"llama.cpp spells the ids of {text[:60]!r} as {back[:60]!r}", fix=fix)
    return len(texts)


# ---- logits ----------------------------------------------------------------------------------------------------------


class TransformersReader:
    """A model that transformers read from the file, asked as `Reader` is."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def logits(self, ids: list[int]) -> np.ndarray:
        """(len(ids), n_vocab) float32."""
        return _logits(self.model, ids).numpy()

    def greedy(self, ids: list[int], n: int) -> list[int]:
        """The likeliest next token, n times."""
        return greedy(self.model, ids, n)


def _transformers_reader(path: Path, model: PreTrainedModel) -> TransformersReader:
    # GPT-2's number of positions is not read back from a file, so the config comes along
    given = {"config": model.config} if model.config.model_type == "gpt2" else {}
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, **given)
    return TransformersReader(loaded.eval())


def _logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu()
    return logits


def greedy(model: PreTrainedModel, ids: list[int], n: int) -> list[int]:
    """The likeliest next token, n times; end tokens are tokens like any other."""
    found: list[int] = []
    inputs, past = torch.tensor([ids], device=model.device), None
    with torch.inference_mode():
        for _ in range(n):
            output = model(input_ids=inputs, past_key_values=past, use_cache=True)
            inputs, past = output.logits[:, -1:].argmax(-1), output.past_key_values
            found.append(int(inputs))
    return found


def _compare(
    name: str,
    reader: Reader | TransformersReader,
    kind: str,
    model: PreTrainedModel,
    items: Sequence[Item],
    n_texts: int,
) -> Checked:
    sums = _Sums()
    for item in items:
        sums.add(_logits(model, item.ids), torch.from_numpy(reader.logits(item.ids).copy()), item)
    bars = bars_of(kind, model.config.model_type)
    allowed = None if bars.logit is None else bars.logit * max(1.0, sums.spread / SPREAD)
    equal, ties = _compare_greedy(reader, kind, model, items, max(allowed or 0.0, sums.largest))
    found = Checked(
        reader=name,
        kind=kind,
        n_texts=n_texts,
        n_items=len(items),
        n_tokens=sums.n,
        bars=bars,
        largest=sums.largest,
        allowed=allowed,
        kl=sums.kl / sums.n,
        agree=sums.agree / sums.n,
        perplexity_run=math.exp(sums.loss_run / max(1, sums.counted)),
        perplexity_file=math.exp(sums.loss_file / max(1, sums.counted)),
        n_greedy=min(GREEDY_PROMPTS, len(items)),
        n_equal_greedy=equal,
        n_ties=ties,
    )
    _hold_to_bars(found)
    return found


@dataclass
class _Sums:
    """Of the positions compared so far."""

    n: int = 0
    counted: int = 0
    largest: float = 0.0
    spread: float = 0.0
    kl: float = 0.0
    agree: int = 0
    loss_run: float = 0.0
    loss_file: float = 0.0

    def add(self, run: Tensor, file: Tensor, item: Item) -> None:
        """run, file: logits (T, V)."""
        if run.shape != file.shape:
            raise HoneError(f"read back, the file has logits {tuple(file.shape)}, the run {tuple(run.shape)}")
        ours, theirs = run.double().log_softmax(-1), file.double().log_softmax(-1)
        difference = float((run - file).abs().max())
        self.largest = difference if math.isnan(difference) else max(self.largest, difference)
        self.spread = max(self.spread, float(run.std()))
        self.kl += float((ours.exp() * (ours - theirs)).sum())
        self.agree += int((run.argmax(-1) == file.argmax(-1)).sum())
        self.n += len(run)
        targets = torch.tensor(item.ids)[1:]
        counts = torch.tensor(item.counted)[1:]
        for losses, name in ((ours, "loss_run"), (theirs, "loss_file")):
            picked = -losses[:-1].gather(1, targets[:, None])[:, 0]
            setattr(self, name, getattr(self, name) + float(picked[counts].sum()))
        self.counted += int(counts.sum())


def _hold_to_bars(found: Checked) -> None:
    """
    Raises:
        HoneError: a bar is missed, or a number is none.
    """
    bars, larger = found.bars, "" if found.kind == "f32" else "try --dtype f32, or "
    change = abs(found.perplexity_file / found.perplexity_run - 1)
    for what, value, bar in (
        ("a logit differs by up to", found.largest, found.allowed),
        ("the mean KL divergence is", found.kl, bars.kl),
        ("the perplexity differs by a share of", change, bars.perplexity),
    ):
        if math.isnan(value) or (bar is not None and value > bar):
            raise HoneError(
                f"read back by {found.reader}, the file answers differently: {what} {value:.2g}, {bar or 0:.2g} is "
                f"accepted for {found.kind}",
                fix=f"nothing was written; {larger}use the run with hone, transformers or vLLM",
            )


# ---- greedy text -----------------------------------------------------------------------------------------------------


def _room(model: PreTrainedModel) -> int:
    """Tokens that are written after a prompt."""
    return min(GREEDY_TOKENS, positions(model) // 2)


def positions(model: PreTrainedModel) -> int:
    """The length of the model's window."""
    return int(getattr(model.config, "max_position_embeddings", 0) or getattr(model.config, "n_positions", 0) or 512)


def _shortened(item: Item, model: PreTrainedModel) -> list[int]:
    return item.prompt[-max(1, positions(model) - _room(model)) :]


def _compare_greedy(
    reader: Reader | TransformersReader,
    kind: str,
    model: PreTrainedModel,
    items: Sequence[Item],
    rounding: float,
) -> tuple[int, int]:
    """How many of the first prompts are answered by the same tokens, and how many part at a tie.

    rounding: what a logit may be off; two tokens that are nearer to each other than twice that are a tie.
    """
    equal = ties = 0
    for item in items[:GREEDY_PROMPTS]:
        prompt = _shortened(item, model)
        ours, theirs = greedy(model, prompt, _room(model)), reader.greedy(prompt, _room(model))
        if ours == theirs:
            equal += 1
            continue
        at = next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
        last = _logits(model, prompt + ours[:at])[-1]
        if float(last[ours[at]] - last[theirs[at]]) <= 2 * rounding:
            ties += 1
        elif kind in SAME_TEXT:
            raise HoneError(
                f"read back, the file writes another text: after {at} tokens {theirs[at]}, the run {ours[at]}",
                fix="nothing was written; use the run with hone, transformers or vLLM",
            )
    return equal, ties
