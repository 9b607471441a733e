"""The building blocks of the schema: `key` declares one documented key, `Section` is the strict base of the sections.

A key carries its whole documentation, so that `hone explain`, the reference page and the comments of the recipes all
come from one place. This file holds no key itself.

>>> class Train(Section):                                                                      # doctest: +SKIP
...     learning_rate: float = key(5e-5, gt=0, what="Size of a step.", why="...", how="...", benefit="...",
...                                tradeoff="...", cpu="5e-5", gpu="5e-5", maps_to="...learning_rate")
"""

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

DOC_PARTS = ("what", "why", "how", "benefit", "tradeoff", "cpu", "gpu")


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values keep their type, assignments are checked."""

    model_config = ConfigDict(
        extra="forbid", strict=True, validate_assignment=True, allow_inf_nan=False, protected_namespaces=()
    )


def _path(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("an empty path")
    return Path(value).expanduser()


FilePath = Annotated[Path, BeforeValidator(_path)]
FilePaths = Annotated[list[FilePath], Field(min_length=1)]
# A file, a folder, or several of them.
FileOrFiles = FilePath | FilePaths | None
Number = int | float


def as_paths(value: Path | list[Path] | None) -> list[Path]:
    """A value of `FileOrFiles` as a list: none, one or several paths."""
    if value is None:
        return []
    return [value] if isinstance(value, Path) else list(value)


def key(
    default: Any,
    *,
    what: str,
    why: str,
    how: str,
    benefit: str,
    tradeoff: str,
    cpu: str,
    gpu: str,
    maps_to: str | None = None,
    example: str | None = None,
    known: tuple[str, ...] = (),
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare one configuration key with its documentation.

    Args:
        default: value when the key is absent.
        what: one sentence, what the key sets.
        why: why a person would touch it.
        how: what happens inside, or how to set it.
        benefit: what a good value gives.
        tradeoff: what too much and too little look like.
        cpu: typical values on a laptop without accelerator.
        gpu: typical values on one accelerator.
        maps_to: dotted name of the library argument with this meaning, None when the key is this package's own.
        example: a finished row, as a listing.
        known: the bundled ones of names that a Python caller may add to.
        ge, gt, le, lt: bounds of numbers.
    """
    texts = (what, why, how, benefit, tradeoff, cpu, gpu)
    docs: dict[str, Any] = {**dict(zip(DOC_PARTS, texts, strict=True)), "maps_to": maps_to, "example": example}
    return Field(
        default, description=what, json_schema_extra=docs, examples=list(known) or None, ge=ge, gt=gt, le=le, lt=lt
    )


def docs_of(field: FieldInfo) -> dict[str, Any]:
    """The documentation parts of a field declared with `key`."""
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


_SIMPLE = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
}
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


def describe_type(annotation: Any) -> str:
    """Name a type in plain words.

    >>> describe_type(Literal["full", "lora"] | None)
    "one of 'full', 'lora', or null"
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [rule for extra in args[1:] for rule in getattr(extra, "metadata", [])]
        return ", ".join([describe_type(args[0]), *_bounds(inner)])
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(repr(value) for value in args)
    if origin in (Union, UnionType):
        if set(args) == {int, float}:
            return "a number"
        return ", or ".join(describe_type(arg) for arg in _flat_union(annotation))
    if origin is list:
        one = describe_type(args[0])
        return "a list of " + {"a path": "paths", "text": "texts", "a whole number": "whole numbers"}.get(one, one)
    if origin is dict:
        return "a mapping of text to text (key: value)" if args[1] is str else "a mapping (key: value)"
    return _SIMPLE.get(annotation, str(annotation))


def _flat_union(annotation: Any) -> list[Any]:
    """The members of a union, nested unions opened, null last."""
    members: list[Any] = []
    for arg in get_args(annotation):
        members += _flat_union(arg) if get_origin(arg) in (Union, UnionType) else [arg]
    return sorted(members, key=lambda member: member is type(None))


def _bounds(rules: list[Any]) -> list[str]:
    """'at least 1' and the like, for the constraints of a field."""
    found = []
    for rule in rules:
        for name, words in _BOUNDS.items():
            bound = getattr(rule, name, None)
            if bound is not None:
                found.append(f"{words} {int(bound) if bound == int(bound) else bound}")
    return found


def describe_field(field: FieldInfo) -> str:
    """Type and bounds of a field in plain words, e.g. 'a number, greater than 0'."""
    annotation = Literal[tuple(field.examples)] if field.examples else field.annotation
    words, null, _ = describe_type(annotation).partition(", or null")
    return ", ".join([words, *_bounds(field.metadata)]) + null
