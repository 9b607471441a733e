"""How much of what a model writes is copied, word for word, from its training rows; tuned compared with base.

Both continue the same prompts, greedily: beginnings of training rows, and of held-out ones. A text copies if at least
50 characters in a row, or 13 words and signs, occur in some training row. A base model knows public code too,
and any model writes what everybody writes: so it is the difference to base, and to held-out prompts, that tells.

Runs of one sign or word (a line of dashes, a list of zeros) are nobody's: a window counts with at least 10 different
characters, or 6 different words. Only the generations are indexed; rows stream by.

>>> [copied.n for copied in copies(["x = " + "abcdefghijklm" * 4], [["y = 1", "abcdefghijklm" * 5]])]
[52]
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from hone.data.contamination import row_texts
from hone.data.ngrams import N, character_form, plain_form, plain_tokens
from hone.evaluation.bench import Bench
from hone.metrics.continuations import greedy, sample_prompts
from hone.processes import from_primary
from hone.results import Kind, Measurement, Sample, level_of
from hone.results.contamination import Continuations, CopiedText, Copying, Memorization
from hone.runs import Run
from hone.show import estimate
from hone.statistics.intervals import ratio_interval, wilson_interval
from hone.statistics.paired import Metric, compare_metrics

log = logging.getLogger("hone")

CHARACTERS, OWN_CHARACTERS = 50, 10
OWN_WORDS = 6
COPYING = Kind(heading="copying", higher_is_better=False, form=".0%", top=1.0)
COPIED_CHARACTERS = Kind(heading="copied characters", higher_is_better=False, form=".0%", top=1.0)
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
    """What of each text occurs word for word in the rows, which come in batches."""
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
    units = [text if characters else plain_tokens(text) for text in texts]
    own = np.array([len(set(units[t][at : at + n])) >= least for t, at in zip(owners, places)], bool)
    return hashes[own], owners[own], places[own]


# ---- in a run -----------------------------------------------------------------------------------------------------


def measure(bench: Bench, name: str, model: PreTrainedModel) -> None:
    """eval/memorization.<name>.json: greedy continuations of the first tokens of training and of held-out rows.

    Continuations of held-out rows that eval/<name>.json has already are taken from there.
    """
    run, settings, tokenizer = bench.run, bench.config.eval, bench.tokenizer
    n = settings.memorization_samples
    if not n or not bench.task.token_rows or from_primary(lambda: run.has(f"memorization.{name}")):
        return
    known = dict(from_primary(lambda: _known(run, name)))
    groups: dict[str, list[Sample]] = {}
    for group, dataset in zip(GROUPS, (bench.data.train, bench.data.validation)):
        prompts = sample_prompts(dataset, tokenizer, n) if len(dataset) else []
        have = known if group == "held_out" else {}
        new = [(ids, sample) for ids, sample in prompts if sample.item not in have]
        texts = greedy(model, tokenizer, [ids for ids, _ in new], settings.sample_max_new_tokens)
        written = {sample.item: text for (_, sample), text in zip(new, texts, strict=True)} | have
        groups[group] = [sample.model_copy(update={"text": written[sample.item]}) for _, sample in prompts]
    found = Continuations(training=groups["training"], held_out=groups["held_out"])
    from_primary(lambda: run.write(f"memorization.{name}", found))


def _known(run: Run, name: str) -> list[tuple[int, str]]:
    """Held-out items that have been continued, and their texts."""
    measured = run.read(Measurement, name)
    return [(sample.item, sample.text) for sample in measured.samples] if measured else []


def compare(bench: Bench) -> None:
    """eval/memorization.json: how much of these texts is copied from the training rows, and the difference to base."""
    run, settings, train = bench.run, bench.config.eval, bench.data.train
    files = {name: run.read(Continuations, f"memorization.{name}") for name in ("base", "tuned")}
    models = {name: {"training": found.training, "held_out": found.held_out} for name, found in files.items() if found}
    if "tuned" not in models or run.has("memorization"):
        return
    flat = [(name, group, sample) for name, groups in models.items() for group in GROUPS for sample in groups[group]]
    found = copies([sample.text for _, _, sample in flat], row_texts(train, bench.tokenizer))
    prompts = {}
    for group in GROUPS:
        copied = {
            name: [c for c, (model, of, _) in zip(found, flat, strict=True) if (model, of) == (name, group)]
            for name in models
        }
        if copied["tuned"]:
            prompts[group] = copying_of(copied, settings.confidence_level)
            log.info("memorization: %s", describe(group, prompts[group]))
    longest = sorted(zip(found, flat, strict=True), key=lambda pair: -pair[0].n)[:LISTED]
    result = Memorization(
        copied_characters_in_a_row=CHARACTERS,
        copied_words_in_a_row=N,
        max_new_tokens=settings.sample_max_new_tokens,
        n_rows=len(np.unique(train.documents)),
        confidence_level=settings.confidence_level,
        prompts=prompts,
        examples=[
            CopiedText(model=name, prompts=group, item=sample.item, copied=_copied_text(sample.text, copy))
            for copy, (name, group, sample) in longest
            if copy.n
        ],
    )
    run.write("memorization", result)


def copying_of(copied: dict[str, list[Copied]], confidence: float = 0.95) -> Copying:
    """For each model the share of texts that copy and of characters that are copied; and tuned - base, by prompt."""
    texts, characters = {}, {}
    for name, found in copied.items():
        lengths = np.array([max(1, len(copy.characters)) for copy in found])
        share = ratio_interval(np.array([copy.n for copy in found]), lengths, confidence=confidence)
        texts[name] = level_of(COPYING, wilson_interval(sum(map(bool, found)), len(found), confidence))
        characters[name] = level_of(COPIED_CHARACTERS, share)
    change = None
    if "base" in copied:
        base, tuned = (
            {"copying": Metric(COPYING, np.array([bool(copy) for copy in copied[name]]))} for name in ("base", "tuned")
        )
        change = compare_metrics(base, tuned, confidence=confidence)["copying"]
    return Copying(n_items=len(copied["tuned"]), copying=texts, copied_characters=characters, change=change)


def describe(group: str, found: Copying) -> str:
    """'of 20 training prompts, tuned continues 45% [26%, 66%] with text copied …, base 5% [1%, 24%]; …'."""
    line = f"of {found.n_items} {group.replace('_', '-')} prompts, tuned continues "
    line += f"{estimate(found.copying['tuned'], COPYING.form)} with text copied from the training rows"
    if found.change is not None:
        line += f", base {estimate(found.copying['base'], COPYING.form)}; "
        line += f"the difference is {estimate(found.change.difference, f'+{COPYING.form}')}"
    return line


def _copied_text(text: str, copy: Copied) -> str:
    """The first stretch that is copied."""
    places = np.flatnonzero(copy.characters)
    first = int(places[0])
    after = np.flatnonzero(~copy.characters[first:])
    return text[first : first + int(after[0])] if len(after) else text[first:]
