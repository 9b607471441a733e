"""The configuration: eight sections of documented keys, every leaf name unique over the whole tree.

The keys themselves are in `sections/`, reading files in `load.py`, rules between keys in `checks.py`.

>>> Config().train.learning_rate
5e-05
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.fields import FieldInfo

from hone.config.sections.data import DataSection
from hone.config.sections.eval import EvalSection
from hone.config.sections.generate import GenerateSection
from hone.config.sections.launch import LaunchSection
from hone.config.sections.method import MethodSection
from hone.config.sections.model import ModelSection
from hone.config.sections.output import OutputSection
from hone.config.sections.train import TrainSection

Where = Callable[[str], str | None]  # leaf -> the line it was given on: `Config.where`


@dataclass
class Provenance:
    """Where a configuration came from. No field takes part in comparisons: two configs are equal by their values."""

    source_text: str | None = field(default=None, compare=False)
    source_path: Path | None = field(default=None, compare=False)
    overrides: list[str] = field(default_factory=list, compare=False)
    notices: list[str] = field(default_factory=list, compare=False)
    lines: dict[str, str] = field(default_factory=dict, compare=False)


class Config(BaseModel):
    """All settings of a run. Built by `load_config`, or directly in Python: `Config(train=TrainSection(seed=1))`.

    Each value is checked here; what contradicts another key is found by `load_config` and before a training.
    """

    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True, protected_namespaces=())

    model: ModelSection = Field(default_factory=ModelSection, description="Which model to start from.")
    data: DataSection = Field(default_factory=DataSection, description="Which rows to train on, and how to cut them.")
    method: MethodSection = Field(default_factory=MethodSection, description="Which of the weights are trained.")
    train: TrainSection = Field(default_factory=TrainSection, description="How the training loop runs.")
    eval: EvalSection = Field(default_factory=EvalSection, description="How the change is measured.")
    generate: GenerateSection = Field(default_factory=GenerateSection, description="How text is sampled.")
    launch: LaunchSection = Field(default_factory=LaunchSection, description="Which processes train together.")
    output: OutputSection = Field(default_factory=OutputSection, description="Where the run is written.")

    _provenance: Provenance = PrivateAttr(default_factory=Provenance)

    @property
    def source_text(self) -> str | None:
        """The YAML as given, None without a file."""
        return self._provenance.source_text

    @property
    def source_path(self) -> Path | None:
        """Absolute path of the YAML file, None without a file."""
        return self._provenance.source_path

    @property
    def overrides(self) -> list[str]:
        """The `key=value` tokens that were applied over the file, as given."""
        return self._provenance.overrides

    @property
    def notices(self) -> list[str]:
        """One line for every translated name and every key without effect; the caller prints them."""
        return self._provenance.notices

    def is_given(self, leaf: str) -> bool:
        """Whether somebody set a leaf, be it to its default."""
        return leaf in getattr(self, leaves()[leaf]).model_fields_set

    @property
    def lines(self) -> dict[str, str]:
        """Leaf -> 'cfg.yaml:12' or 'command line', for the leaves that were given."""
        return self._provenance.lines

    def where(self, leaf: str) -> str | None:
        """Where the value of `leaf` was given, None for defaults and Python mappings."""
        return self._provenance.lines.get(leaf)

    def changed(self, values: Mapping[str, Any]) -> "Config":
        """A copy with other values of some leaves, validated; where the others were given is still known."""
        sections = leaves()
        tree = {section: getattr(self, section).model_dump(exclude_unset=True) for section in section_names()}
        for leaf, value in values.items():
            tree[sections[leaf]][leaf] = value
        fresh = Config.model_validate(tree)
        fresh._provenance = self._provenance
        return fresh


def section_names() -> list[str]:
    """The sections in their order."""
    return list(Config.model_fields)


def section_fields(section: str) -> dict[str, FieldInfo]:
    """Leaf -> field of one section."""
    annotation = Config.model_fields[section].annotation
    assert isinstance(annotation, type) and issubclass(annotation, BaseModel), f"{section} is not a section"
    return annotation.model_fields


def leaves() -> dict[str, str]:
    """Leaf -> its section, for every key of the schema."""
    return {leaf: section for section in section_names() for leaf in section_fields(section)}


def leaf_field(leaf: str) -> FieldInfo:
    """The field of one leaf; KeyError when there is none."""
    return section_fields(leaves()[leaf])[leaf]
