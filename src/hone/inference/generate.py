"""Answers of a model: prompts in, texts out, in batches.

An answer is a function of the model, the prompt, the settings and the seed alone: not of the other prompts of a
batch or a file, nor of other random draws (see `engine`). Only these settings
count; a sampling habit in the model's own generation_config.json, such as a repetition penalty, does not.

>>> settings = chosen_settings("runs/light-lab", {"temperature": 0.8})                   # doctest: +SKIP
>>> for texts in generate_texts(model, tokenizer, ["def add(a, b):"], settings, "plain"): print(texts)  # doctest: +SKIP
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.load import load_config
from hone.config.sections.generate import GenerateSection
from hone.data.records import Example
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError, placed
from hone.files import read_json
from hone.hardware import best_device
from hone.inference.engine import Engine, Request, answer_all
from hone.inference.prompts import Prompt, prompt_ids, turn_end
from hone.inference.stream import Answer, AnswerRule
from hone.models.inspect import check_vocabulary, first_tokens, max_positions, reads_source
from hone.models.load import load_finished, quiet_libraries
from hone.models.source import check_source
from hone.runs import RESOLVED

PROMPTS_AT_ONCE = 512  # are sorted by length before they are cut into batches; answers come in the order asked


class SamplingOptions(TypedDict, total=False):
    """How answers are drawn, as `hone.generate` and the command line take it; None is as good as not given.

    n answers to each prompt, a seed, and otherwise the keys of the section `generate`: `hone explain temperature`.
    """

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    n: int | None
    seed: int | None
    stop: Sequence[str] | None


def trained_template(model: str | Path) -> str | None:
    """The template a run or one of its checkpoints was trained with, None for any other model.

    Raises:
        HoneError: the file that says it is damaged.
    """
    path = Path(model) / "template.json"
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or "template" not in found:
        raise HoneError(
            "names no template: the file is damaged", where=str(path), fix="--template NAME takes its place"
        )
    return str(found["template"])


def ready_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a run, an adapter, a model folder or a hub name, on the best device there is.

    Raises:
        HoneError: it does not load, or the two do not belong together.
    """
    quiet_libraries()
    check_source(name)  # a missing model is better news than a missing tokenizer
    model = load_finished(name)
    tokenizer = load_tokenizer(name)
    if not model.can_generate():
        raise HoneError("this model classifies texts, it writes none", where=name, fix=f"use `hone predict {name}`")
    check_vocabulary(model, tokenizer)
    return model.to(best_device()), tokenizer


def chosen_template(
    model: str | Path, given: str | None, tokenizer: PreTrainedTokenizerBase, *, talking: bool = False
) -> str:
    """The template given, or that of the training, or "plain"; when `talking`, "chat" if the tokenizer has one.

    Raises:
        HoneError: no such template, or the tokenizer has none for "chat".
    """
    if given not in (None, "plain", "instruction", "chat"):
        raise HoneError(f"unknown template '{given}'", fix="use plain, instruction or chat")
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    template = given or trained_template(model) or ("chat" if talking and has_chat else "plain")
    if template == "chat" and not has_chat:
        fix = "use --template plain or instruction, or put the base model's chat_template.jinja into the folder"
        raise HoneError("the tokenizer has no chat template", where=str(model), fix=fix)
    return template


def chosen_settings(model: str | Path, options: SamplingOptions) -> GenerateSection:
    """The section `generate` of a run's configuration (the defaults for any other model), with `options` over it.

    Raises:
        HoneError: no such option, a value is out of its bounds, or two contradict each other.
    """
    keys = {"n": "num_return_sequences", "seed": "sampling_seed"}
    chosen = {keys.get(name, name): value for name, value in options.items() if value is not None}
    folder = Path(model)
    own = next((path for path in (folder / RESOLVED, folder.parent / RESOLVED) if path.is_file()), None)
    section = load_config(own).generate if own and trained_template(model) else GenerateSection()
    return load_config({"generate": {**section.model_dump(), **chosen}}).generate


def answers(
    name: str, prompts: Sequence[Prompt | Example | str], template: str | None, options: SamplingOptions
) -> Iterator[list[str]]:
    """`generate_texts` of a model by its name, with the template and the settings of its training where none are given.

    Raises:
        HoneError: as `chosen_settings`, `ready_model`, `chosen_template` and `generate_texts`.
    """
    settings = chosen_settings(name, options)
    model, tokenizer = ready_model(name)
    return generate_texts(model, tokenizer, prompts, settings, chosen_template(name, template, tokenizer))


def pieces(name: str, prompt: Example | str, template: str | None, options: SamplingOptions) -> Iterator[str]:
    """The answers to one prompt while they are written, with an empty line between; joined, those of `answers`.

    Raises:
        HoneError: as `answers`.
    """
    settings = chosen_settings(name, options)
    model, tokenizer = ready_model(name)
    chosen = chosen_template(name, template, tokenizer)
    ids = fitting_ids(model, tokenizer, prompt, chosen)
    rule = answer_rule(model, tokenizer, chosen, settings, len(ids))
    engine = Engine(model)
    for number in range(settings.num_return_sequences):
        if number:
            yield "\n\n"
        answer = Answer(tokenizer, [] if reads_source(model) else ids, rule)
        yield from (step.text for step in engine.run(Request(ids, answer, settings, number)) if step.text)


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt | Example | str],
    settings: GenerateSection,
    template: str,
) -> Iterator[list[str]]:
    """The answers to each prompt, `num_return_sequences` of them, in the order given.

    Raises:
        HoneError: a prompt cannot be formatted or fills the model's window; before anything is generated, with the
            place of a `Prompt`.
    """
    ids: list[list[int]] = []
    for prompt in prompts:
        example, where = (prompt.example, prompt.where) if isinstance(prompt, Prompt) else (prompt, None)
        with placed(where):
            ids.append(fitting_ids(model, tokenizer, example, template))
    rules = [answer_rule(model, tokenizer, template, settings, len(row)) for row in ids]
    n, copies = settings.num_return_sequences, 1
    if settings.temperature == 0:
        n, copies = 1, n  # greedy answers are all the same
    group = max(1, PROMPTS_AT_ONCE // n)
    engine = Engine(model)
    for start in range(0, len(ids), group):
        rows = [row for row in ids[start : start + group] for _ in range(n)]
        answers = [
            Answer(tokenizer, [] if reads_source(model) else row, rule)
            for row, rule in zip(ids[start : start + group], rules[start:])
            for _ in range(n)
        ]
        pairs = zip(rows, answers, strict=True)
        answer_all(engine, [Request(row, answer, settings, i % n) for i, (row, answer) in enumerate(pairs)])
        for first in range(0, len(answers), n):
            yield [answer.text for answer in answers[first : first + n]] * copies


def fitting_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Example | str, template: str
) -> list[int]:
    """What the model is given for a prompt: its ids, or the framed source of an encoder-decoder; never empty.

    Raises:
        HoneError: the prompt cannot be formatted, or leaves no room in the model's window.
    """
    ids = prompt_ids(prompt, template, tokenizer, framed=reads_source(model)) or [start_id(tokenizer)]
    window = max_positions(model)
    if window is not None and len(ids) >= window:
        raise HoneError(f"the prompt has {len(ids)} tokens, the model's window {window}", fix="shorten the prompt")
    return ids


def start_id(tokenizer: PreTrainedTokenizerBase) -> int:
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(start, int):
            return start
    raise HoneError("the prompt is empty and the tokenizer has no start token", fix="give a prompt")


def answer_rule(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    settings: GenerateSection,
    prompt_length: int,
) -> AnswerRule:
    """What ends an answer: end tokens, what a chat template writes behind each answer, stop texts, the window."""
    ends, stop = set(special_ends(model, tokenizer)), list(settings.stop)
    if template == "chat" and (marker := turn_end(tokenizer)):
        first = tokenizer.encode(marker, add_special_tokens=False)[0]
        if first in tokenizer.added_tokens_decoder:
            ends.add(first)
        else:
            stop.append(marker)
    window = max_positions(model)
    begun = len(first_tokens(model)) if reads_source(model) else prompt_length
    left = None if window is None else window - begun
    room = settings.max_new_tokens if left is None else min(settings.max_new_tokens, left)
    return AnswerRule(frozenset(ends), stop, room, trim=template == "chat")


def special_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokenizer's end token, and those special tokens that the model's generation_config names as well."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named = found if isinstance(found, list) else [found]
    ends = {token for token in named if token in tokenizer.added_tokens_decoder}
    return frozenset(token for token in {*ends, tokenizer.eos_token_id} if token is not None)
