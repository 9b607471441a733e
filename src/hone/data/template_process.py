"""Renders one chat template, within limits: what `data/template_rendering.py` asks, in a process of its own.

Asked for a conversation and cuts of it ([how many turns, is an answer to follow]), it answers each cut with `text` or
`refused`. The environment is that of transformers' chat_template_utils.py: same tags, filters, globals and
prohibitions.
"""

import datetime
import json
import sys
from collections.abc import Mapping
from typing import Any

from hone.data.limited import MEMORY, TOO_LONG, answer, asked, limit_memory, limit_time

WORDS = 500  # of an error, characters


def main() -> None:
    """Answer until the other side closes."""
    questions = asked()
    about = next(questions)
    room, template = _environment(), None
    answer("started")
    for question in questions:
        size = sum(len(turn["content"]) for turn in question["messages"])
        most = about["characters"] + about["character_times"] * size
        try:
            limit_memory(about["memory_bytes"] + about["memory_times"] * size)
            for turns, answer_next in question["cuts"]:
                limit_time(about["seconds"])
                if template is None:
                    template = _compiled(room, about["template"])
                answer(_rendered(template, question["messages"][:turns], answer_next, about["tokens"], most))
                limit_time(0)
        except MemoryError:
            sys.exit(MEMORY)


def _compiled(room: Any, template: str) -> Any:
    """The template, or the exception that it does not compile with."""
    try:
        return room.from_string(template)
    except MemoryError:
        raise
    except Exception as error:
        return error


def _rendered(
    template: Any, messages: list[dict[str, str]], answer_next: bool, tokens: Mapping[str, object], most: int
) -> dict[str, str]:
    if isinstance(template, Exception):
        return _refused(template)
    values = {**tokens, "messages": messages, "tools": None, "documents": None, "add_generation_prompt": answer_next}
    try:
        pieces, length = [], 0
        for piece in template.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > most:
                sys.exit(TOO_LONG)
        return {"text": "".join(pieces)}
    except MemoryError:
        raise
    except Exception as error:
        return _refused(error)


def _refused(error: Exception) -> dict[str, str]:
    return {"refused": str(error)[:WORDS], "kind": type(error).__name__}


# ---- the environment -------------------------------------------------------------------------------------------------


class _NoDict:
    """What `dict` is in a template: it makes one, and has no way to anything else."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


def _environment() -> Any:
    from jinja2 import exceptions, nodes, parser, utils
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant says; for the text it changes nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    class Namespace(utils.Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            values = dict(*args[1:], **kwargs)
            for name in values:
                _refuse_private(name)
            utils.Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: Any) -> None:
            _refuse_private(name)
            super().__setitem__(name, value)

    def _refuse_private(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise exceptions.SecurityError(f"a namespace may not hold {name!r}: names that begin with _ are refused")

    def raise_exception(message: str) -> None:
        raise exceptions.TemplateError(message)

    def tojson(
        x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    room.filters["tojson"] = tojson
    room.globals["raise_exception"] = raise_exception
    room.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    room.globals["dict"] = _NoDict()
    room.globals["namespace"] = Namespace
    return room
