"""Programming tasks given to a model: how each is asked, where an answer ends, and the answers, kept for the next time.

A task is formatted by the template of the training (`data/templates.py`): as a row's instruction, or, for models
without one, as code to be continued. Nothing generated is run here (`grade.py` does that, in sandboxes).

Answers are kept in a file for each model, by prompt: the name of the file is a hash of the weights, the tokenizer and
all that decides the draws, so that two models never share an answer. An interrupted generation goes on where it was.

>>> answers = solve(model, tokenizer, read_tasks(path), config.generate, "plain")      # doctest: +SKIP
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.cache import answer_cache
from hone.config.sections.generate import GenerateSection
from hone.data.records import Example
from hone.data.templates import HEADING, code_request, program_request, with_names
from hone.data.tokenizer import start_ids, tokenizer_fingerprint
from hone.errors import placed
from hone.files import disk_errors
from hone.grading.extract import STOP_STRINGS
from hone.grading.tasks import Task
from hone.inference.generate import generate_texts, special_ends
from hone.inference.prompts import Prompt, prompt_ids
from hone.models.inspect import max_positions, reads_source
from hone.processes import everybodys, from_primary, shared, world

log = logging.getLogger("hone")
# A model that continues a function goes on to others. A helper after it is lost by this, but hardly any model writes
# one there, and the published figures of base models are measured so.
AFTER_A_FUNCTION = ("\ndef ", "\nclass ", "\n@", *STOP_STRINGS)
AFTER_A_PROGRAM = ('\n"""', *STOP_STRINGS)  # the next question of a model that was asked in a docstring
NEXT_INSTRUCTION = (f"\n{HEADING}",)


def question(task: Task, template: str) -> tuple[Example | str, tuple[str, ...]]:
    """What the model is asked, in the form of a row, and the texts that end its answer.

    >>> question(Task("t", "def f(x):\\n", "f", ("f",), ("assert f(1)",)), "plain")[0]
    'def f(x):\\n'
    """
    asked: Example | str
    stops: tuple[str, ...]
    if task.prompt_is_code:
        asked, stops = code_request(task.prompt, template), AFTER_A_FUNCTION
    else:
        words = with_names(task.prompt.strip(), task.calls, task.tests[0].strip())
        asked, stops = program_request(words, template), AFTER_A_PROGRAM
    if template != "plain":
        stops = NEXT_INSTRUCTION if template == "instruction" else ()
    return asked, stops


def open_ended(prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning of a function, cut where its body can begin: without blanks that the tokenizer joins to the body.

    Where `\n` and four spaces are one token, a model has never read that `\n` alone before a body and ends the text.
    Only behind a docstring or a colon: there nothing but a new line can follow, so that prompt and answer still are one
    program; behind a statement or a comment a model might go on in its line.
    """
    cut = prompt.rstrip()
    if "#" in cut.rpartition("\n")[2] or not cut.endswith((":", '"""', "'''")):
        return prompt
    continued, given = start_ids(tokenizer, [f"{cut}\n    return", prompt], special=False)
    return prompt if continued[: len(given)] == given else cut


def solve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    settings: GenerateSection,
    template: str,
) -> dict[str, list[str]]:
    """task_id -> its `num_return_sequences` answers; without the tasks that leave no room in the model's window.

    Raises:
        HoneError: a task that the template cannot format; answers cannot be kept on the disk.
    """
    window = max_positions(model)
    identity: dict[str, Any] | None = None
    groups: dict[tuple[str, ...], list[tuple[Task, Example | str, list[int]]]] = {}
    for task in tasks:
        asked, stops = question(task, template)
        if isinstance(asked, str) and task.prompt_is_code:
            asked = open_ended(asked, tokenizer)
        with placed(task.where):
            ids = prompt_ids(asked, template, tokenizer, framed=reads_source(model))
        if window is None or len(ids) < window:
            groups.setdefault(stops, []).append((task, asked, ids))
    answers: dict[str, list[str]] = {}
    for stops, group in groups.items():
        own = settings.model_copy(update={"stop": [*settings.stop, *stops]})
        identity = identity or from_primary(lambda: model_identity(model, tokenizer))
        kept = Kept(answers_folder() / f"{_hash({**identity, 'template': template, **own.model_dump()})}.jsonl")
        keys = {task.task_id: _hash(ids) for task, _, ids in group}
        prompts = {keys[task.task_id]: (task, asked, ids) for task, asked, ids in group}
        found = _answers(model, tokenizer, prompts, own, template, kept)
        answers |= {task_id: found[key] for task_id, key in keys.items()}
    return answers


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[str, tuple[Task, Example | str, list[int]]],
    settings: GenerateSection,
    template: str,
    kept: "Kept",
) -> dict[str, list[str]]:
    """The answers to all prompts, each kept as soon as it is there; what is missing is shared among the processes.

    Of the missing ones those of like length are answered together.
    """
    before = everybodys(lambda: {key: kept.answers[key] for key in prompts if key in kept.answers})
    known = {key: answers for of_one in before for key, answers in of_one.items()}
    order = sorted((key for key in prompts if key not in known), key=lambda key: len(prompts[key][2]))
    among = f", shared by {world()} processes" if world() > 1 else ""
    log.info("code tasks: %d prompts to answer, %d answered before%s", len(order), len(known), among)

    def answer(mine: Sequence[str]) -> list[list[str]]:
        asked = [Prompt(prompts[key][1], {}, prompts[key][0].where) for key in mine]
        for i, (key, found) in enumerate(zip(mine, generate_texts(model, tokenizer, asked, settings, template)), 1):
            kept.add(key, found)
            if i % 20 == 0:
                log.info("code tasks: %d of %d answered", i, len(mine))
        return [kept.answers[key] for key in mine]

    return known | dict(zip(order, shared(order, answer), strict=True))


# ---- answers on the disk ---------------------------------------------------------------------------------------------


class Kept:
    """Answers by prompt in a file of JSON lines, read once and appended to; several processes may, at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, list[str]] = {}
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    one = json.loads(line)
                    if one["hash"] == _hash([one["prompt"], one["answers"]]):
                        self.answers[one["prompt"]] = one["answers"]
                except (ValueError, KeyError, TypeError):  # the last line before a crash, or a damaged one
                    continue  # generated once more

    def add(self, key: str, answers: list[str]) -> None:
        line = json.dumps({"prompt": key, "answers": answers, "hash": _hash([key, answers])})
        with disk_errors(self.path, "HONE_CACHE=…"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(f"\n{line}\n".encode())  # after half a line of a crash, too
        self.answers[key] = answers


def answers_folder() -> Path:
    """$HONE_CACHE/answers, else ~/.cache/hone/answers."""
    return answer_cache()


def model_identity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All of a model that an answer depends on: its weights, its tokenizer, its end tokens, and what computes it."""
    return {
        "weights": weights_sha256(model),
        "config": model.config.to_json_string(),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "ends": sorted(special_ends(model, tokenizer)),
        "device": model.device.type,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
    }


def weights_sha256(model: PreTrainedModel) -> str:
    """A hash of every parameter and buffer: names, shapes, types and all values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def tasks_sha256(tasks: Sequence[Task]) -> str:
    """A hash of the tasks, wherever they were read from."""
    parts = [[t.task_id, t.prompt, t.entry_point, t.calls, t.tests, t.setup, t.reference, t.together] for t in tasks]
    return _hash(parts)
