"""The words of the field and the keys of the settings, as the page lists, completes and explains them.

>>> [one["key"] for one in keys() if one["choices"] == ["full", "freeze", "lora"]]
['method']
"""

from typing import Annotated, Any, Literal, get_args, get_origin

from hone.config.concepts import concepts, plain
from hone.config.explain import default_text, described
from hone.config.fields import describe_field, docs_of
from hone.config.related import MOST_USED
from hone.config.schema import leaf_field, leaves, section_names
from hone.serve.refusal import JsonObject


def words() -> JsonObject:
    """All concepts by group, and all keys by section, each with its first sentence."""
    ideas = [
        {"title": one.title, "group": one.group, "words": _words(one.words), "what": _first_sentence(plain(one.text))}
        for one in concepts()
    ]
    return {"concepts": ideas, "keys": keys(), "sections": {name: described(name) for name in section_names()}}


def keys() -> list[JsonObject]:
    """Every key: where it stands, what it takes, what it is for."""
    return [
        {
            "key": leaf,
            "section": section,
            "type": describe_field(leaf_field(leaf)),
            "choices": _choices(leaf_field(leaf).annotation) or list(leaf_field(leaf).examples or []),
            "default": default_text(leaf),
            "what": docs_of(leaf_field(leaf))["what"],
            "often": leaf in MOST_USED,
        }
        for leaf, section in leaves().items()
    ]


def _words(found: tuple[str, ...]) -> list[str]:
    """Those that are looked for in a text: no key, and no single letter."""
    return [word for word in found if word not in leaves() and "_" not in word and len(word) > 1]


def _first_sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    end = first.find(". ")
    return first if end < 0 else first[: end + 1]


def _choices(annotation: Any) -> list[str]:
    """The texts that a value may be; none where it may be any."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if annotation is bool:
        return ["true", "false"]
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [] if get_origin(annotation) in (list, dict) else [text for one in inner for text in _choices(one)]
