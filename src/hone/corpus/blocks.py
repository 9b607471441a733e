"""What is taken from datatrove by name: its filters and formatters, as `blocks:` lists them.

>>> [type(block).__name__ for block in blocks_of([{"PIIFormatter": {}}])]          # doctest: +SKIP
['PIIFormatter']
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hone.errors import HoneError, first_line

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

LEFT_OUT = ("LambdaFilter", "SamplerFilter")  # a function cannot be written in YAML; draws depend on what ran before
INSTALL = "install what prepares corpora: pip install 'hone-lm[corpus]' (or pip install 'datatrove>=0.10,<0.11')"


def require_datatrove() -> None:
    """Raise a HoneError with the line to type where datatrove is not installed."""
    if find_spec("datatrove") is None:
        raise HoneError("datatrove is not installed", where="hone corpus", fix=INSTALL)


def quiet() -> None:
    """No lines of datatrove's on stderr: what it says of each task is in the results of the tasks."""
    from loguru import logger

    logger.remove()


def blocks_of(wanted: Sequence[Mapping[str, object]] | None) -> "list[PipelineStep]":
    """The blocks that a configuration names, made with their arguments.

    Raises:
        HoneError: no such block, other arguments, or a package that it needs is missing.
    """
    return [_block(name, arguments) for one in wanted or [] for name, arguments in one.items()]


def _block(name: str, arguments: object) -> "PipelineStep":
    from datatrove.pipeline import filters, formatters
    from datatrove.pipeline.filters.base_filter import BaseFilter
    from datatrove.pipeline.formatters.base import BaseFormatter

    known = {
        one.__name__: one
        for module in (filters, formatters)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, BaseFilter | BaseFormatter) and one.__name__ not in LEFT_OUT
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        fix = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(known))}"
        raise HoneError(f"datatrove has no filter or formatter '{name}'", where="blocks", fix=fix)
    try:
        return known[name](**arguments if isinstance(arguments, dict) else {})
    except TypeError as error:
        raise HoneError(f"{name}: {first_line(error)}", where="blocks", fix="see its arguments in datatrove") from None
    except ImportError as error:
        raise HoneError(
            f"{name}: {first_line(error)}", where="blocks", fix="install it, or leave the block out"
        ) from None


def through(blocks: "Sequence[PipelineStep]", text: str, where: str) -> tuple[str, str | None]:
    """A text as the blocks leave it, and why one of them drops it, if one does."""
    if not blocks:
        return text, None
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
    from datatrove.pipeline.formatters.base import BaseFormatter

    document = Document(text=text, id=where)
    for block in blocks:
        try:
            if isinstance(block, BaseFormatter):
                document.text = block.format(document.text)
            elif isinstance(block, BaseFilter):
                kept, reason = get_filter_result(block.filter(document))
                if not kept:
                    return document.text, f"{type(block).__name__}{': ' + reason if reason else ''}"
        except ImportError as error:
            fix = "install it, or leave the block out"
            raise HoneError(f"{type(block).__name__}: {first_line(error)}", where="blocks", fix=fix) from None
    return document.text, None
