"""Writing a converted model: aside, read back, compared with its source, and only then renamed.

Nothing is believed of a writer or of a file format: what stands at `target` has given the reference's logits again,
and where it does not, nothing stands there.

>>> check = same_logits(reference, logits_of_folder, tolerance=1e-3)                              # doctest: +SKIP
>>> with verified_write(target, check) as written:                                                # doctest: +SKIP
...     model.save_pretrained(written.path)
...     del model                                             # one copy of the weights at a time
>>> written.found                                                                                 # doctest: +SKIP
2.1e-07
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor

from hone.errors import HoneError, placed
from hone.files import disk_errors, follow_umask, fsync_path, write_text_atomic
from hone.manifest import describe_model

F = TypeVar("F")  # what a check finds: the largest difference of logits, or more

SETTING = "-o FOLDER"  # what the user changes to write elsewhere
DEFECT = "this is a defect of hone or of an installed package: `hone doctor` lists the versions"


@dataclass
class Written(Generic[F]):
    """path: where to write. found: what the check made of it, once it was read back."""

    path: Path
    found: F | None = None


def refuse_existing(target: Path) -> None:
    """Raise a HoneError if something is at `target`; an empty folder is nothing. To be asked before the work."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise HoneError("exists already", where=str(target), fix="name another folder")


@contextmanager
def verified_write(
    target: Path, check: Callable[[Path], F], card: Callable[[F], str] | None = None
) -> Iterator[Written[F]]:
    """Within it a folder is written at `path`; at its end that becomes `target`, or it is gone.

    Args:
        check: reads what was written; a HoneError where it does not hold, else what was found.
        card: the text of README.md, given that.

    Raises:
        HoneError: the check's, or the disk refuses; nothing is left at `target` then.
    """
    written: Written[F] = Written(target.with_name(f".{target.name}.tmp-{os.getpid()}"))
    try:
        with disk_errors(target, SETTING):
            written.path.mkdir(parents=True)
            yield written
        with placed(str(target)):
            written.found = check(written.path)
        with disk_errors(target, SETTING):
            if card is not None:
                write_text_atomic(written.path / "README.md", card(written.found), SETTING)
            follow_umask(written.path)
            describe_model(written.path)
            for path in (*written.path.iterdir(), written.path):
                fsync_path(path)
            if target.is_dir():
                target.rmdir()  # it is empty
            written.path = written.path.rename(target)
            fsync_path(target.parent)
    finally:
        if written.path != target:
            shutil.rmtree(written.path, ignore_errors=True)


def same_logits(
    reference: Tensor, read_back: Callable[[Path], Tensor], *, tolerance: float, fix: str = DEFECT
) -> Callable[[Path], float]:
    """A check that gives the largest difference of any logit.

    Args:
        reference: logits of the source, of any shape. read_back: what was written -> its logits, for the same input.
        tolerance: the largest difference of any logit that is taken for the same model.
        fix: what to do where they differ more.
    """

    def check(path: Path) -> float:
        found = difference(reference, read_back(path))
        if not found <= tolerance:  # also refuses nan
            raise HoneError(
                f"read back, the model answers differently: its logits differ by up to {found:.1e}, "
                f"{tolerance:.1e} is accepted",
                fix=f"nothing was written; {fix}",
            )
        return found

    return check


def difference(reference: Tensor, logits: Tensor) -> float:
    """The largest of any value; infinite where the shapes differ, and nan where a value is not a number."""
    return float((reference - logits).abs().max()) if reference.shape == logits.shape else math.inf
