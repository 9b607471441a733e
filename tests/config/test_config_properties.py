"""What holds for any configuration: what is written is read again, overrides are YAML, no unknown key passes."""

import json
import string
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.config import Config, load_config, resolved_yaml
from hone.config.aliases import ALIASES, GONE
from hone.config.schema import leaf_field, leaves, section_names
from hone.errors import HoneError

SOME = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
PATHS = ("file", "path", "dir", "code_tasks", "checkpoint", "dataset")  # made absolute: no round trip of the text


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a key's type; whether they are in bounds is for the schema to say."""
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    plain = {bool: st.booleans(), int: st.integers(1, 64), float: st.floats(0.001, 0.9), str: WORDS}
    if annotation in plain:
        return plain[annotation]
    if get_origin(annotation) is list:
        return st.lists(values_of(get_args(annotation)[0]), min_size=1, max_size=3)
    if get_origin(annotation) is dict:
        return st.dictionaries(st.sampled_from(["n_layer", "n_head"]), st.integers(1, 9), max_size=2)
    members = [values_of(member) for member in get_args(annotation) if member is not type(None)]
    return st.one_of(members) if members else st.nothing()


@st.composite
def keys(draw: Any) -> dict[str, Any]:
    names = [leaf for leaf in leaves() if not any(part in leaf for part in PATHS)]
    chosen = draw(st.lists(st.sampled_from(names), max_size=6, unique=True))
    return {leaf: draw(values_of(leaf_field(leaf).annotation)) for leaf in chosen}


def loaded(*arguments: Any, **more: Any) -> Config | None:
    try:
        return load_config(*arguments, **more)
    except HoneError:  # values that contradict one another, or are out of bounds
        return None


@SOME
@given(values=keys())
def test_what_is_written_is_read_again(values: dict[str, Any], tmp_path: Any) -> None:
    config = loaded(values)
    if config is not None:
        path = tmp_path / "cfg.yaml"
        path.write_text(resolved_yaml(config), encoding="utf-8", newline="")
        assert load_config(path) == config
        assert all(getattr(getattr(config, leaves()[leaf]), leaf) == value for leaf, value in values.items())


@SOME
@given(values=keys())
def test_nested_flat_yaml_overrides_and_python_are_one(
    values: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nested: dict[str, dict[str, Any]] = {}
    for leaf, value in values.items():
        nested.setdefault(leaves()[leaf], {})[leaf] = value
    (tmp_path / "cfg.yaml").write_text(json.dumps(values))
    typed = [f"{leaf}={json.dumps(value)}" for leaf, value in values.items()]
    of_a_section = [f"{leaves()[leaf]}.{leaf}={json.dumps(value)}" for leaf, value in values.items()]
    ways = [loaded(values), loaded(nested), loaded(tmp_path / "cfg.yaml") if values else loaded({})]
    ways += [loaded(None, typed), loaded(None, of_a_section), loaded(None, keys=values)]
    assert all(way == ways[0] for way in ways), values


KNOWN = {*leaves(), *section_names(), *ALIASES, *GONE}


@SOME
@given(
    name=st.text(string.ascii_lowercase + "_", min_size=1, max_size=12) | st.sampled_from(sorted(leaves())),
    at=st.integers(0, 30),
    letter=st.sampled_from("aex_z"),
)
def test_no_unknown_key_passes(name: str, at: int, letter: str) -> None:
    wrong = name[: at % (len(name) + 1)] + letter + name[at % (len(name) + 1) :]  # one letter too many
    if wrong in KNOWN:
        return
    for source, overrides in (({wrong: 1}, []), ({"train": {wrong: 1}}, []), (None, [f"{wrong}=1"])):
        with pytest.raises(HoneError) as caught:
            load_config(source, overrides)
        assert wrong in str(caught.value)
