"""Several values of one key: a list of them for a grid, a range to search in, several seeds.

Does not know what a search is; `training/search.py` does.

>>> split_choices(["my.yaml", "lr=[1e-4, 3e-4]", "num_train_epochs=1..4", "seed=1"])
(['my.yaml', 'seed=1'], {'learning_rate': [0.0001, 0.0003], 'num_train_epochs': (1, 4)})
>>> grid({"learning_rate": [1e-4, 3e-4], "seed": [1]})
[{'learning_rate': 0.0001, 'seed': 1}, {'learning_rate': 0.0003, 'seed': 1}]
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from hone.config.overrides import parse_value
from hone.config.parse import plain_scalar
from hone.config.resolve import Given, Problem, resolve
from hone.config.schema import leaf_field
from hone.errors import HoneError

Choices = list[Any] | tuple[float, float]  # these values; or from the first to the second
Space = Mapping[str, Choices]
Point = dict[str, Any]  # one value of each
RANGE = re.compile(r"(?P<low>[^.\s].*?)\.\.(?P<high>.+)")
WHERE = "command line"
MOST_SEEDS = 1000
LONGEST_NAME = 80  # letters of a folder


def split_choices(tokens: Sequence[str]) -> tuple[list[str], dict[str, Choices]]:
    """The tokens without those that give several values to a key that takes one, and these by the key's own name.

    Raises:
        HoneError: a key twice, a list without values, or a range that has no inside.
    """
    left: list[str] = []
    space: dict[str, Choices] = {}
    for token in tokens:
        name, _, text = token.partition("=")
        written = name.lstrip("-").replace("-", "_")
        leaf = _leaf(written)
        if leaf is None or _takes_lists(leaf):
            left.append(token)
            continue
        choices = _choices(written, text.strip())
        if choices is None:
            left.append(token)
        elif leaf in space:
            raise HoneError(f"{leaf} has two lists of values", where=WHERE, fix="give one of them")
        else:
            space[leaf] = choices
    return left, space


def grid(space: Space) -> list[Point]:
    """Every combination of the lists once, the last key's values changing first."""
    found = (dict(zip(space, values)) for values in itertools.product(*space.values()))
    return list({point_name(values): values for values in found}.values())


def point_name(values: Mapping[str, Any]) -> str:
    """A folder's name for one combination.

    >>> point_name({"learning_rate": 1e-4, "model_name_or_path": "org/model"})
    'learning_rate-0.0001,model_name_or_path-org_model'
    """
    name = ",".join(f"{leaf}-{re.sub(r'[^A-Za-z0-9._+-]+', '_', str(value))}" for leaf, value in values.items())
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(str(dict(values)).encode()).hexdigest()[:8]}"


def parse_seeds(text: str, first: int) -> list[int]:
    """'3' -> three seeds from `first` on; '1,1,7' -> these.

    >>> parse_seeds("3", 42), parse_seeds("1,1,7", 42)
    ([42, 43, 44], [1, 1, 7])
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        fix = "give how many, --seeds 6, or which ones, --seeds 1,2,7"
        raise HoneError(f"'{text}' is neither a number nor a list of them", where="--seeds", fix=fix)
    numbers = [int(part) for part in parts]
    if len(parts) == 1 and numbers[0] > MOST_SEEDS:
        raise HoneError(f"{text} trainings are more than {MOST_SEEDS}", where="--seeds", fix="give fewer")
    return numbers if len(parts) > 1 else list(range(first, first + numbers[0]))


def seed_folders(seeds: Sequence[int]) -> list[str]:
    """
    >>> seed_folders([1, 7, 1])
    ['seed-1', 'seed-7', 'seed-1-run-2']
    """
    seen: Counter[int] = Counter()
    names = []
    for seed in seeds:
        seen[seed] += 1
        names.append(f"seed-{seed}" + (f"-run-{seen[seed]}" if seen[seed] > 1 else ""))
    return names


def _leaf(name: str) -> str | None:
    """The schema's name of what was written; None where it is no key, which the parser of settings says better."""
    found = resolve(Given(name.rpartition(".")[2], None, 0, WHERE, 0, Path()))
    return None if isinstance(found, Problem) else str(found[0].name)


def _takes_lists(leaf: str) -> bool:
    def is_list(kind: Any) -> bool:
        return get_origin(kind) in (list, dict) or any(is_list(one) for one in get_args(kind))

    return is_list(leaf_field(leaf).annotation)


def _choices(name: str, text: str) -> Choices | None:
    """What a value says if it is a list or a range."""
    if text.startswith("["):
        values = parse_value(name, text).value
        if not isinstance(values, list) or not values:
            raise HoneError(f"{name} has a list without values", where=WHERE, fix=f"write {name}=[1e-4,3e-4]")
        return values
    if (found := RANGE.fullmatch(text)) is None:
        return None
    low, high = plain_scalar(found["low"]), plain_scalar(found["high"])
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
        return None
    if not low < high:
        raise HoneError(f"{name} goes from {low} to {high}", where=WHERE, fix="the smaller number comes first")
    return low, high
