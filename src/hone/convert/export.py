"""`hone export`: a run as other programs take it, written aside, read back, compared with the run, and then named.

>>> print(export("runs/my", "gguf").text)                                 # doctest: +SKIP
wrote runs/my-gguf/my-f16.gguf (21.0 MB, f16, template instruction)
verified: read back by llama.cpp (llama-cpp-python 0.3.36) and compared with the run
...
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hone import bundled
from hone.convert.gguf_export import KINDS, Gguf, export_gguf, plain_name
from hone.convert.gguf_text import lines as checked_lines
from hone.convert.hub_upload import Uploaded, upload
from hone.convert.merge import DTYPES, Merged, merge
from hone.convert.verified_write import refuse_existing
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.models.source import ADAPTER, check_adapter, check_source
from hone.show import size

TARGETS = ("merged", "gguf", "ollama", "hub")
NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}  # both spellings of a dtype are taken


@dataclass(frozen=True)
class Exported:
    """What was written. path: the folder, or the address on the hub. text: what `hone export` prints.

    verified: weights and, where there is one to check, the tokenizer were read back and compared.
    """

    to: str
    path: str
    text: str
    verified: bool
    details: Mapping[str, object]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"to": self.to, "path": self.path, "verified": self.verified, **self.details}


def export(
    source: str,
    to: str,
    *,
    output: Path | None = None,
    dtype: str | None = None,
    base: str | None = None,
    repo: str | None = None,
    public: bool = False,
) -> Exported:
    """Write a model for other programs and check what was written.

    Args:
        source: a run, a checkpoint, an adapter, a model folder or a hub name.
        to: merged (a plain model folder), gguf (a file for llama.cpp), ollama (that with a Modelfile), hub (upload).
        output: the folder to write; None: beside the source, `<name>-<to>`.
        dtype: of the weights: float32, bfloat16 or float16; for gguf and ollama f32, f16, bf16 or q8_0, f16 if None.
        base: where an adapter's base is now. repo, public: of an upload.

    Raises:
        HoneError: an unknown target, a model that cannot be written so, or one that answers differently once read back.
    """
    chosen = _check_arguments(to, output, dtype, repo, public)
    if (Path(source) / ADAPTER).is_file():
        check_adapter(Path(source))
    else:
        check_source(source)
    if to == "hub":
        return _uploaded(upload(source, str(repo), public=public, base=base))
    target = output or _beside(source, to)
    refuse_existing(target)
    tokenizer = load_tokenizer(source)
    if to == "merged":
        return _merged(merge(source, target, tokenizer, base=base, dtype=chosen))
    done = export_gguf(source, target, chosen or "f16", tokenizer, base=base, ollama=to == "ollama")
    return _gguf(done, to)


def _check_arguments(to: str, output: Path | None, dtype: str | None, repo: str | None, public: bool) -> str | None:
    """The dtype as the target spells it."""
    if to not in TARGETS:
        raise HoneError(f"unknown target '{to}'", where="--to", fix=f"use {', '.join(TARGETS)}")
    if to == "hub":
        if output is not None or dtype is not None:
            raise HoneError("an upload writes no folder and changes no dtype", fix="leave out --output and --dtype")
        if repo is None or repo.count("/") != 1:
            raise HoneError("an upload needs a name on the hub", where="--repo", fix="--repo YOUR-NAME/MODEL")
        return None
    if repo is not None or public:
        raise HoneError("--repo and --public are for --to hub", fix="leave them out, or write --to hub")
    if dtype is None:
        return None
    spelled = {**NAMES, **{long: short for short, long in NAMES.items()}}
    known = DTYPES if to == "merged" else KINDS
    found = dtype if dtype in known else spelled.get(dtype, dtype)
    if found not in known:
        raise HoneError(f"unknown dtype '{dtype}'", where="--dtype", fix=f"use {', '.join(known)}")
    return found


def _beside(source: str, to: str) -> Path:
    """Where a model goes without --output: next to its folder; here, where the source is none of the user's."""
    folder = Path(source)
    if folder.is_dir() and not bundled.is_meant(source):
        folder = folder.resolve() if folder.name in ("", "..") else folder
        return folder.with_name(f"{folder.name}-{to}")
    return Path(f"{source.rpartition('/')[2]}-{to}")


def _merged(done: Merged) -> Exported:
    text = [f"wrote {done.folder}: {done.n_parameters:,} parameters, {done.dtype}"]
    what = "base and adapter" if done.base else "the run"
    text.append(
        f"verified: loaded again, its logits differ from those of {what} by at most {done.difference:.1e} of their "
        f"spread (allowed: {done.tolerance:.0e})"
    )
    if not done.base_checked:
        text.append("note: the adapter does not say which weights it was trained on; the base is unchecked")
    names = ("base", "dtype", "n_parameters", "difference", "tolerance", "base_checked")
    return Exported("merged", str(done.folder), "\n".join(text), True, {name: getattr(done, name) for name in names})


def _gguf(done: Gguf, to: str) -> Exported:
    text = [f"wrote {done.file} ({size(done.n_bytes)}, {done.kind}, template {done.template})"]
    text += [*checked_lines(done.checked, done.compared_on), *(f"note: {note}" for note in done.notes)]
    if to == "ollama":
        folder, name = shlex.quote(str(done.folder)), plain_name(done.folder).lower()
        text.append(f"next: cd {folder} && ollama create {name} -f Modelfile && ollama run {name}")
    else:
        text.append(f"next: llama-server -m {shlex.quote(str(done.file))} --jinja")
    details = {
        "file": str(done.file),
        "dtype": done.kind,
        "template": done.template,
        "bytes": done.n_bytes,
        "compared_on": done.compared_on,
        "notes": done.notes,
        **done.checked.as_dict(),
    }
    return Exported(to, str(done.folder), "\n".join(text), done.checked.whole, details)


def _uploaded(done: Uploaded) -> Exported:
    seen = "public" if done.public else "private"
    text = [f"uploaded {len(done.files)} files to {done.address} ({seen}, {size(done.n_bytes)})"]
    text.append("verified: the hub's hashes of them are those of the files here")
    text += [f"note: {note}" for note in done.notes]
    details = {"files": done.files, "bytes": done.n_bytes, "public": done.public, "notes": done.notes}
    return Exported("hub", done.address, "\n".join(text), True, details)
