"""Paths as a report shows them: a page that is handed on does not tell how its maker's machine is laid out.

>>> shown(Path("/a/b/demo/rows.jsonl"), Path("/a/b/demo/run"))
'../rows.jsonl'
"""

import os
import shlex
from pathlib import Path
from typing import Any

from hone.config.schema import leaves
from hone.report.folder import Folder

CLOSE = 3  # folders up from the run: what is further away has nothing to do with it


def shown(path: Path, run: Path) -> str:
    """Relative to the run's folder, else to the home folder, else its last two parts; a relative path as it is.

    >>> shown(Path("/elsewhere/models/gpt2"), Path("/a/b/c/d/run"))
    '…/models/gpt2'
    """
    if not path.is_absolute():
        return str(path)
    relative = Path(os.path.relpath(path, run)) if path.drive == run.drive else path
    ups = relative.parts.count("..")
    if not relative.is_absolute() and ups <= CLOSE and ups < len(run.parts) - 1:
        return relative.as_posix()
    if path.is_relative_to(Path.home()):
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    return "/".join(["…", *path.parts[1:][-2:]])


def displayed(value: Any, run: Path) -> Any:
    """A value of the config with its absolute paths as `shown` has them."""
    if isinstance(value, list):
        return [displayed(one, run) for one in value]
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        return shown(Path(value), run)
    return value


def tidied(text: str, folder: Folder) -> str:
    """A text that quotes paths, such as a line of train.log, with those of the config and of the run as shown."""
    run = folder.path
    known = {run, *_paths(folder)}
    for path in sorted(known, key=lambda one: -len(str(one))):
        text = text.replace(str(path), "." if path == run else shown(path, run))
    home = str(Path.home())
    return text.replace(f"{home}{os.sep}", f"~{os.sep}") if len(home) > 1 else text


def _paths(folder: Folder) -> set[Path]:
    config = folder.config
    values = [getattr(getattr(config, section), leaf) for leaf, section in leaves().items()] if config else []
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    found = {Path(one) for one in flat if isinstance(one, (Path, str))}
    return {path for path in found if path.is_absolute() and len(path.parts) > 1}


def typed(path: Path) -> str:
    """A path as it is typed in a command: from the current folder or from home, if it is below one of them.

    >>> typed(Path.cwd() / "out" / "my run")
    "'out/my run'"
    """
    path = path.absolute()
    if path.is_relative_to(Path.cwd()):
        return shlex.quote(str(path.relative_to(Path.cwd())))
    if path.is_relative_to(Path.home()):
        return f"~/{shlex.quote(str(path.relative_to(Path.home())))}"
    return shlex.quote(str(path))
