"""The schema against itself and against the installed libraries."""

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from hone.config.aliases import ALIASES, GONE, SECTION_SCALARS
from hone.config.checks import require_training
from hone.config.fields import DOC_PARTS, describe_field, docs_of
from hone.config.load import NAME_OR_FOLDER_LEAVES, PATH_LEAVES
from hone.config.schema import Config, leaf_field, leaves, section_fields, section_names
from hone.config.sections.train import Optimizer, Schedule
from hone.errors import HoneError

LEAVES = leaves()


def test_sections_and_their_order() -> None:
    assert section_names() == ["model", "data", "method", "train", "eval", "generate", "launch", "output"]


def test_every_leaf_name_is_unique_over_the_tree() -> None:
    names = [leaf for section in section_names() for leaf in section_fields(section)]
    assert len(names) == len(set(names)) == len(LEAVES)


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_key_is_fully_documented(leaf: str) -> None:
    docs = docs_of(leaf_field(leaf))
    assert set(docs) == {*DOC_PARTS, "maps_to", "example"}
    assert all(docs[part].strip() == docs[part] != "" for part in DOC_PARTS)
    assert docs["what"].endswith((".", "].")) and docs["what"].count(". ") <= 1
    assert len(docs["what"]) <= 130 and all(len(docs[part]) <= 420 for part in DOC_PARTS)


def _resolves(dotted: str) -> bool:
    """Whether a dotted name is an object, a dataclass field, a parameter, or an attribute of a default instance."""
    module, *rest = dotted.split(".")
    found: Any = importlib.import_module(module)
    for at, name in enumerate(rest):
        if hasattr(found, name):
            found = getattr(found, name)
            continue
        last = at == len(rest) - 1
        fields = {field.name for field in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
        parameters = inspect.signature(found).parameters if callable(found) else {}
        attributes = vars(found()) if dotted.startswith("transformers.GenerationConfig.") else {}
        return last and (name in fields or name in parameters or name in attributes)
    return True


def test_maps_to_names_something_that_the_installed_libraries_have() -> None:
    mapped = {leaf: docs_of(leaf_field(leaf))["maps_to"] for leaf in LEAVES}
    assert [f"{leaf}: {name}" for leaf, name in mapped.items() if name and not _resolves(name)] == []
    assert not _resolves("transformers.TrainingArguments.warmup_ratio")  # the check itself can fail
    assert sum(name is not None for name in mapped.values()) > 50


def test_train_keys_are_training_arguments_of_the_same_name() -> None:
    for leaf, field in section_fields("train").items():
        maps_to = docs_of(field)["maps_to"]
        assert maps_to is None or maps_to.rsplit(".", 1)[1] == leaf


def test_schedules_exist_and_need_no_arguments_of_their_own() -> None:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    for name in get_args(Schedule):
        assert get_scheduler(name, optimizer, num_warmup_steps=1, num_training_steps=10) is not None


def test_optimizers_are_names_of_transformers() -> None:
    from transformers.training_args import OptimizerNames

    assert set(get_args(Optimizer)) - {"muon"} <= {name.value for name in OptimizerNames}


@pytest.mark.parametrize("name", [*ALIASES, *GONE])
def test_foreign_names_never_hide_a_key(name: str) -> None:
    assert name not in LEAVES and name not in section_names()
    assert name not in ALIASES or ALIASES[name].leaf in LEAVES
    assert not (name in ALIASES and name in GONE)


def test_path_keys_are_known_to_the_loader() -> None:
    with_paths = {leaf for leaf in LEAVES if "path" in describe_field(leaf_field(leaf)).split(",")[0].split()}
    assert with_paths == set(PATH_LEAVES)
    assert {*NAME_OR_FOLDER_LEAVES, *SECTION_SCALARS.values()} <= set(LEAVES)


def test_defaults_are_valid_and_equal() -> None:
    assert Config() == Config() and Config().notices == []
    assert Config.model_validate(Config().model_dump()) == Config()


def test_assignments_are_checked() -> None:
    config = Config()
    config.train.num_train_epochs = 2
    assert config.train.num_train_epochs == 2.0
    config.data.train_file = "~/rows.jsonl"  # type: ignore[assignment]
    assert config.data.train_file == Path.home() / "rows.jsonl"
    for name, value in (("learning_rate", "1e-4"), ("seed", True), ("max_steps", 1.5), ("lerning_rate", 1.0)):
        with pytest.raises(ValidationError):
            setattr(config.train, name, value)


def test_conflicts_are_refused_in_python_too() -> None:
    with pytest.raises(HoneError, match="bf16 and fp16 are both true"):
        require_training(Config.model_validate({"train": {"bf16": True, "fp16": True}}))


def test_mutable_defaults_are_not_shared() -> None:
    Config().generate.stop.append("x")
    assert Config().generate.stop == []
