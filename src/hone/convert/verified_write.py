"""Writing a converted model: aside, read back, compared with its source, and only then renamed.

Nothing is believed of a writer or of a file format: what stands at `target` has given the reference's logits again,
and where it does not, nothing stands there.

>>> with verified_write(target, reference, logits_of_folder, tolerance=1e-3) as written:          # doctest: +SKIP
...     model.save_pretrained(written.path)
...     del model                                             # one copy of the weights at a time
>>> written.difference                                                                            # doctest: +SKIP
2.1e-07
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hone.errors import HoneError
from hone.files import disk_errors, follow_umask, fsync_path, write_text_atomic
from hone.manifest import describe_model

SETTING = "OUT"  # what the user changes to write elsewhere
DEFECT = "this is a defect of hone or of an installed package: `hone doctor` lists the versions"


@dataclass
class Written:
    """path: where to write. difference: the largest of any logit from the reference's, once read back."""

    path: Path
    difference: float = math.nan


def refuse_existing(target: Path) -> None:
    """Raise a HoneError if something is at `target`; an empty folder is nothing. To be asked before the work."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise HoneError("exists already", where=str(target), fix="name another folder")


@contextmanager
def verified_write(
    target: Path,
    reference: Tensor,
    read_back: Callable[[Path], Tensor],
    *,
    tolerance: float,
    card: Callable[[float], str] | None = None,
    fix: str = DEFECT,
) -> Iterator[Written]:
    """Within it a folder is written at `path`; at its end that becomes `target`, or it is gone.

    Args:
        reference: logits of the source, of any shape.
        read_back: what was written -> its logits, for the same input.
        tolerance: the largest difference of any logit that is taken for the same model.
        card: the text of README.md, given the difference.
        fix: what to do where the logits differ.

    Raises:
        HoneError: the logits differ, or the disk refuses; nothing is left at `target` then.
    """
    written = Written(target.with_name(f".{target.name}.tmp-{os.getpid()}"))
    try:
        with disk_errors(target, SETTING):
            written.path.mkdir(parents=True)
            yield written
        written.difference = difference(reference, read_back(written.path))
        if not written.difference <= tolerance:  # also refuses nan
            raise HoneError(
                f"read back from {target.name}, the model answers differently: its logits differ by up to "
                f"{written.difference:.1e}, {tolerance:.1e} is accepted",
                where=str(target),
                fix=f"nothing was written; {fix}",
            )
        with disk_errors(target, SETTING):
            if card is not None:
                write_text_atomic(written.path / "README.md", card(written.difference), SETTING)
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


def difference(reference: Tensor, logits: Tensor) -> float:
    """The largest of any value; infinite where the shapes differ, and nan where a value is not a number."""
    return float((reference - logits).abs().max()) if reference.shape == logits.shape else math.inf
