"""How much of what a model writes is copied, word for word, from its training rows; tuned beside base.

Both continue the same prompts, greedily: beginnings of training rows, and of held-out ones. A text copies if at least
50 characters in a row, or 13 words and signs, stand just so in some training row. A base model knows public code too,
and any model writes what everybody writes: so it is the difference to base, and to held-out prompts, that tells.

Runs of one sign or word (a line of dashes, a list of zeros) are nobody's: a window counts with at least 10 different
characters, or 6 different words. Only the generations are indexed; rows stream by.

>>> [copied.n for copied in copies(["x = " + "abcdefghijklm" * 4], [["y = 1", "abcdefghijklm" * 5]])]
[52]
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.contamination import row_texts
from hone.data.ngrams import PLAIN, N, character_form, plain_form
from hone.data.prepare import Prepared
from hone.metrics.continuations import greedy, sample_prompts
from hone.runs import Run
from hone.statistics.intervals import Interval, mcnemar, ratio_interval, share_difference_interval, wilson_interval
from hone.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("hone")

CHARACTERS, OWN_CHARACTERS = 50, 10
OWN_WORDS = 6
GROUPS = ("training", "held_out")  # where prompts come from
LISTED = 10  # copied texts in eval/memorization.json


@dataclass(frozen=True)
class Copied:
    """characters: (t,) bool, those in copied windows of CHARACTERS. words: are N words and signs copied?"""

    characters: np.ndarray
    words: bool

    @property
    def n(self) -> int:
        """Copied characters."""
        return int(self.characters.sum())

    def __bool__(self) -> bool:
        return self.words or self.n > 0


def copies(texts: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Copied]:
    """What of each text stands word for word in the rows, which come in batches."""
    wanted = [_windows(texts, characters=True), _windows(texts, characters=False)]
    seen = [np.zeros(len(hashes), bool) for hashes, _, _ in wanted]
    for batch in rows:
        for form, n, (hashes, _, _), found in zip((character_form, plain_form), (CHARACTERS, N), wanted, seen):
            found |= np.isin(hashes, form(batch).ngrams(n)[0])
    characters = [np.zeros(len(text), bool) for text in texts]
    hashes, owners, places = wanted[0]
    for i in np.flatnonzero(seen[0]):
        characters[owners[i]][places[i] : places[i] + CHARACTERS] = True
    with_words = set(wanted[1][1][seen[1]].tolist())
    return [Copied(where, i in with_words) for i, where in enumerate(characters)]


def _windows(texts: Sequence[str], *, characters: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hash, text and place of each window that has enough different characters, or words."""
    n, least = (CHARACTERS, OWN_CHARACTERS) if characters else (N, OWN_WORDS)
    hashes, owners = (character_form if characters else plain_form)(texts).ngrams(n)
    first = np.searchsorted(owners, owners)  # of the same text
    places = np.arange(len(owners)) - first
    units = [text if characters else PLAIN.findall(text) for text in texts]
    own = np.array([len(set(units[t][at : at + n])) >= least for t, at in zip(owners, places)], bool)
    return hashes[own], owners[own], places[own]


# ---- in a run -----------------------------------------------------------------------------------------------------


def write_texts(
    run: Run,
    name: str,
    model: "PreTrainedModel",
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    data: Prepared,
    config: Config,
) -> None:
    """eval/memorization.<name>.json: greedy continuations of the first tokens of training and of held-out rows.

    Continuations of held-out rows that eval/<name>.json has already are taken from there.
    """
    n, settings = config.eval.memorization_samples, config.eval
    if not n or not task.token_rows or run.read_eval(f"memorization.{name}") is not None:
        return
    measured = run.read_eval(name) or {}
    known = {sample["item"]: sample[name] for sample in measured.get("samples", ()) if name in sample}
    groups: dict[str, Any] = {}
    for group, dataset in zip(GROUPS, (data.train, data.validation)):
        prompts = sample_prompts(dataset, tokenizer, n) if len(dataset) else []
        have = known if group == "held_out" else {}
        new = [(ids, about) for ids, about in prompts if about["item"] not in have]
        texts = greedy(model, tokenizer, [ids for ids, _ in new], settings.sample_max_new_tokens)
        written = {about["item"]: text for (_, about), text in zip(new, texts, strict=True)} | have
        groups[group] = [{**about, "text": written[about["item"]]} for _, about in prompts]
    run.write_eval(f"memorization.{name}", groups)


def compare_copies(run: Run, tokenizer: "PreTrainedTokenizerBase", data: Prepared, config: Config) -> None:
    """eval/memorization.json: how much of these texts is copied from the training rows, and the difference to base."""
    files = {name: run.read_eval(f"memorization.{name}") for name in ("base", "tuned")}
    models = {name: groups for name, groups in files.items() if groups is not None}
    if "tuned" not in models or run.read_eval("memorization") is not None:
        return
    flat = [(name, group, entry) for name, groups in models.items() for group in GROUPS for entry in groups[group]]
    found = copies([entry["text"] for _, _, entry in flat], row_texts(data.train, tokenizer))
    result: dict[str, Any] = {
        "copied_characters_in_a_row": CHARACTERS,
        "copied_words_in_a_row": N,
        "max_new_tokens": config.eval.sample_max_new_tokens,
        "n_rows": len(np.unique(data.train.documents)),
        "confidence_level": config.eval.confidence_level,
        "prompts": {},
    }
    for group in GROUPS:
        copied = {
            name: [c for c, (model, of, _) in zip(found, flat, strict=True) if (model, of) == (name, group)]
            for name in models
        }
        if copied["tuned"]:
            result["prompts"][group] = shares(copied, config.eval.confidence_level)
            log.info("memorization: %s", describe(group, result["prompts"][group]))
    result["examples"] = [
        {"model": name, "prompts": group, "item": entry["item"], "copied": _copied_text(entry["text"], copy)}
        for copy, (name, group, entry) in sorted(zip(found, flat, strict=True), key=lambda pair: -pair[0].n)[:LISTED]
        if copy.n
    ]
    run.write_eval("memorization", result)


def shares(copied: dict[str, list[Copied]], confidence: float = 0.95) -> dict[str, Any]:
    """For each model the share of texts that copy and of characters that are copied; and tuned - base, by prompt."""
    result: dict[str, Any] = {"n_items": len(copied["tuned"])}
    for name, texts in copied.items():
        lengths = np.array([max(1, len(copy.characters)) for copy in texts])
        texts_that_copy = wilson_interval(sum(map(bool, texts)), len(texts), confidence)
        characters = ratio_interval(np.array([copy.n for copy in texts]), lengths, confidence=confidence)
        result[name] = _with_bounds("copying", texts_that_copy) | _with_bounds("copied_characters", characters)
    if "base" in copied:
        only_base = sum(bool(b) and not t for b, t in zip(copied["base"], copied["tuned"], strict=True))
        only_tuned = sum(bool(t) and not b for b, t in zip(copied["base"], copied["tuned"], strict=True))
        change = share_difference_interval(only_base, only_tuned, len(copied["tuned"]), confidence)
        result |= _with_bounds("copying_difference", change)
        result |= {"only_base": only_base, "only_tuned": only_tuned, "p_value": mcnemar(only_base, only_tuned)}
    return result


def describe(group: str, found: dict[str, Any]) -> str:
    """'of 20 training prompts, tuned continues 45% [26%, 66%] with text copied …, base 5% [1%, 24%]; …'."""
    told = f"of {found['n_items']} {group.replace('_', '-')} prompts, tuned continues "
    told += f"{_percent(found['tuned'], 'copying')} with text copied from the training rows"
    if "base" in found:
        told += f", base {_percent(found['base'], 'copying')}; "
        told += f"the difference is {_percent(found, 'copying_difference', '+')}"
    return told


def _percent(found: dict[str, Any], key: str, sign: str = "") -> str:
    interval = found[f"{key}_interval"]
    bounds = f" [{interval[0]:{sign}.0%}, {interval[1]:{sign}.0%}]" if interval else " [no interval]"
    return f"{found[key]:{sign}.0%}{bounds}"


def _with_bounds(key: str, interval: Interval) -> dict[str, Any]:
    bounds = None if interval.low is None or interval.high is None else [interval.low, interval.high]
    return {key: interval.value, f"{key}_interval": bounds}


def _copied_text(text: str, copy: Copied) -> str:
    """The first stretch that is copied."""
    places = np.flatnonzero(copy.characters)
    first = int(places[0])
    after = np.flatnonzero(~copy.characters[first:])
    return text[first : first + int(after[0])] if len(after) else text[first:]
