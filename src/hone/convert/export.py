"""`hone export`: a run as other programs take it, written aside, read back, compared with the run, and then named.

>>> done = export("runs/my", "merged")                                   # doctest: +SKIP
>>> print(done.text)                                                      # doctest: +SKIP
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone import bundled
from hone.convert.merge import DTYPES, Merged, merge
from hone.convert.verified_write import refuse_existing
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.models.source import ADAPTER, check_adapter, check_source

TARGETS = ("merged",)


@dataclass(frozen=True)
class Exported:
    """What was written. path: the folder. text: what `hone export` prints. details: the same, as JSON."""

    to: str
    path: str
    text: str
    details: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"to": self.to, "path": self.path, **self.details}


def export(
    source: str, to: str, *, output: Path | None = None, dtype: str | None = None, base: str | None = None
) -> Exported:
    """Write a model for other programs and check what was written.

    Args:
        source: a run, a checkpoint, an adapter, a model folder or a hub name.
        to: merged (a plain model folder).
        output: the folder to write; None: beside the source, `<name>-<to>`.
        dtype: of the weights. base: where an adapter's base is now.

    Raises:
        HoneError: an unknown target, a model that cannot be written so, or one that answers differently once read back.
    """
    if to not in TARGETS:
        raise HoneError(f"unknown target '{to}'", where="--to", fix=f"use {', '.join(TARGETS)}")
    if dtype not in (None, *DTYPES):
        raise HoneError(f"unknown dtype '{dtype}'", where="--dtype", fix=f"use {', '.join(DTYPES)}")
    if (Path(source) / ADAPTER).is_file():
        check_adapter(Path(source))
    else:
        check_source(source)
    target = output or _beside(source, to)
    refuse_existing(target)
    merged = merge(source, target, load_tokenizer(source), base=base, dtype=dtype)
    return Exported(to, str(merged.folder), _merged_text(merged), _merged_details(merged))


def _beside(source: str, to: str) -> Path:
    """Where a model goes without --output: next to its folder; here, where the source is none of the user's."""
    folder = Path(source)
    if folder.is_dir() and not bundled.is_meant(source):
        folder = folder.resolve() if folder.name in ("", "..") else folder
        return folder.with_name(f"{folder.name}-{to}")
    return Path(f"{source.rpartition('/')[2]}-{to}")


def _merged_text(done: Merged) -> str:
    lines = [f"wrote {done.folder}: {done.n_parameters:,} parameters, {done.dtype}"]
    what = "base and adapter" if done.base else "the run"
    lines.append(
        f"verified: loaded again, its logits differ from those of {what} by at most {done.difference:.1e} of their "
        f"spread (allowed: {done.tolerance:.0e})"
    )
    if not done.base_checked:
        lines.append("note: the adapter does not say which weights it was trained on; the base is unchecked")
    return "\n".join(lines)


def _merged_details(done: Merged) -> dict[str, Any]:
    names = ("base", "dtype", "n_parameters", "difference", "tolerance", "base_checked")
    return {"verified": True, **{name: getattr(done, name) for name in names}}
