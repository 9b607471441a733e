"""In what two runs differ besides their models, as far as their files tell: the held-out rows, their form, copies.

>>> contamination_note(Path("runs/leaky"), Path("runs/clean"))          # doctest: +SKIP
'contamination differs: of the 40 held-out documents of runs/leaky, 38 are in the training rows; runs/clean was …'
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.config.load import load_config
from hone.config.schema import Config, leaves
from hone.errors import HoneError
from hone.files import read_json
from hone.results.contamination import Contamination, leaked
from hone.runs import RESOLVED, Run
from hone.show import plural

# What decides which rows are held out of the same files, and how a row becomes a text of tokens.
CHOICE = ("validation_split_percentage", "split_seed", "deduplicate", "dataset_validation_split")
FORM = ("template", "column_mapping", "max_length", "on_long_row", "batching", "append_eos", "max_target_length")


@dataclass(frozen=True)
class Leaks:
    """Held-out items in the rows that a run trained on. dropped: rows that held one, and were left out."""

    found: Contamination
    dropped: int

    @property
    def kept(self) -> dict[str, int]:
        """Of how many items there are copies of each kind."""
        return {} if self.dropped else {kind: n for kind, n in self.found.by_kind.items() if n}


def contamination_note(a: Path, b: Path) -> str:
    """That one run trained on what both are measured on and the other did not, or on less of it; else nothing."""
    leaks = {folder: _leaks(folder) for folder in (a, b)}
    kept = [one and one.kept for one in leaks.values()]
    if not any(kept) or kept[0] == kept[1]:
        return ""
    said = "; ".join(_trained_on(one, folder) for folder, one in leaks.items())
    (leaky, *others) = [folder for folder, one in leaks.items() if one and one.kept]
    which = "" if others else f". The numbers of {leaky} are better than they would be on new rows"
    return f"contamination differs: {said}{which}"


def _leaks(folder: Path) -> Leaks | None:
    """None where it was not looked for."""
    found, config = Run(folder).read(Contamination, "contamination"), _config(folder)
    if found is None or found.not_searched is not None:
        return None
    dropped = config is not None and config.data.overlap == "drop"
    return Leaks(found, len(found.rows) if dropped else 0)


def _trained_on(leaks: Leaks | None, folder: Path) -> str:
    if leaks is None:
        return f"for {folder} it was not looked for"
    items = f"{plural(leaks.found.n_items, f'held-out {leaks.found.item}')} of {folder}"
    if leaks.kept:
        return f"of the {items}, {leaked(leaks.found)}"
    if leaks.dropped:
        held = "held or nearly matched one" if leaks.found.by_kind.get("near") else "held one"
        return f"{folder} was trained without the {plural(leaks.dropped, 'row')} that {held} (overlap=drop)"
    return f"none of the {items} is in its training rows"


def other_items(a: Path, b: Path) -> tuple[str, str] | None:
    """What differs between the held-out items of two runs, and what to do; None where their files do not tell."""
    first, second = _config(a), _config(b)
    if first is None or second is None:
        return None
    choice, form = (_differing(keys, (first, a), (second, b)) for keys in (CHOICE, FORM))
    if first.data.validation_file and second.data.validation_file:
        choice = {}
    if choice or (first.data.max_eval_samples != second.data.max_eval_samples):
        choice |= _differing(("max_eval_samples",), (first, a), (second, b))
        return f"other rows are held out: {_listed(choice, a)}", f"train both with the same {' and '.join(choice)}"
    if not form or _held_out_files(a) != _held_out_files(b) or _held_out_files(a) is None:
        return None
    what = f"the rows are the same, their form is not: {_listed(form, a)}"
    return what, f"losses of texts in another form cannot be compared: train both with the same {' and '.join(form)}"


def _config(folder: Path) -> Config | None:
    with suppress(HoneError):
        return load_config(folder / RESOLVED) if (folder / RESOLVED).is_file() else None
    return None


def _differing(
    keys: tuple[str, ...], a: tuple[Config, Path], b: tuple[Config, Path]
) -> dict[str, tuple[object, object]]:
    found = {key: (_value(key, *a), _value(key, *b)) for key in keys}
    return {key: values for key, values in found.items() if values[0] != values[1]}


def _value(key: str, config: Config, folder: Path) -> object:
    """Of a config; the template as it was chosen, where the config leaves that open."""
    if key == "template" and (folder / "template.json").is_file():
        with suppress(HoneError):
            return read_json(folder / "template.json").get("template")
    return getattr(getattr(config, leaves()[key]), key)


def _listed(differing: dict[str, tuple[object, object]], a: Path) -> str:
    return ", ".join(f"{key} is {here}, and {there} in {a}" for key, (there, here) in differing.items())


def _held_out_files(folder: Path) -> Any:
    """What env.json says of the files that the held-out rows come from, by content."""
    with suppress(HoneError):
        data = Run(folder).env.get("data") or {}
        files = data.get("validation") or data.get("train")
        return [file.get("sha256") for file in files] if files else data or None
    return None
