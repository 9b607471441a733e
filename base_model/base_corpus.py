"""The base model's corpus: this Python's standard library and the packages of base-packages.txt, source files only.

Wheels are fetched with pip and read as archives; nothing of them is installed or run. A package counts only if its
metadata names a permissive licence. Files are left out that are tests, vendored, generated, tables, no English or
copies; e-mail addresses and keys are masked. Packages marked `# held out` go to another file, and training files that
share a passage with them are dropped. What was dropped, and why, is in corpus.md.

    python base_model/base_corpus.py --out out/base  # four .jsonl files, corpus.json, corpus.md
"""

import argparse
import ast
import email
import hashlib
import json
import platform
import re
import subprocess
import sys
import sysconfig
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path, PurePosixPath

import numpy as np

from hone.corpus.masking import masked
from hone.errors import HoneError
from hone.files import write_json_atomic, write_text_atomic

PACKAGES = Path(__file__).with_name("base-packages.txt")
PERMISSIVE = re.compile(
    r"(MIT|(new |modified |simplified |[234]-clause )?BSD|0BSD|Apache|PSF|Python|ISC|Zlib|CC0|Unlicense)\b", re.I
)

TEST_FOLDERS = {"test", "tests", "testing", "idle_test", "_pyinstaller", "benchmarks"}
VENDORED = re.compile(
    r"^(_?vendor(ed|s)?|_?externals?|extern|third_?party|_?bundled|_distutils|backports?|site-packages|lib2to3)$"
)
NO_PROSE = {"encodings", "pydoc_data", "idlelib", "turtledemo", "msilib", "ensurepip", "__pycache__", "locale"}
GENERATED = re.compile(
    r"(auto|automatically |machine[- ])generated|generated (by|from|using|automatically)|do not edit", re.I
)
NOTICE = re.compile(r"copyright|licen[sc]e|all rights reserved", re.I)

# Packages of small functions with few dependencies: nearest to what the model is for.
PLAIN = {
    "python", "algorithms", "more-itertools", "funcy", "sortedcontainers", "tabulate", "bottle", "pyrsistent",
}  # fmt: skip

PASSAGE = 10  # lines of code in a row that two files do not share by chance
SHINGLE, SKETCH, BANDS = 5, 64, 16  # words hashed together; hashes kept of a file; groups of which one must agree
NEAR = 0.7  # of the sketch: from here on two files are copies


@dataclass
class Package:
    """Where a package's text came from and what became of it. dropped: reason -> files."""

    name: str
    version: str
    licence: str
    held_out: bool = False
    files: int = 0
    n_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Document:
    package: Package
    path: str
    text: str


def main() -> None:
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = read_packages(PACKAGES)
    wheels = fetch(wanted, options.out / "wheels")
    packages, documents = [], []
    for package, files in [library(), *(wheel(wheels[name], held) for name, held in wanted.items())]:
        packages.append(package)
        documents += clean(package, files)
        print(f"{package.name} {package.version} ({package.licence}): {package.files} files kept", flush=True)
    documents.sort(key=lambda document: not document.package.held_out)  # stable: a copy of held-out text drops, not it
    documents = without_copies(documents)
    for name, held_out in (("train", False), ("held_out", True)):
        chosen = [document for document in documents if document.package.held_out == held_out]
        write_rows(options.out / f"{name}.jsonl", chosen)
    functions = list(small_functions(documents))
    write_rows(options.out / "functions.jsonl", functions)
    write_rows(options.out / "last.jsonl", [*functions, *read_last(documents)])
    for package in packages:
        kept = [len(document.text.encode()) for document in documents if document.package is package]
        package.files, package.n_bytes = len(kept), sum(kept)
    write_json_atomic(options.out / "corpus.json", [vars(package) for package in packages])
    write_text_atomic(options.out / "corpus.md", table(packages))
    print(table(packages).rsplit("\n\n", 1)[-1])


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for wheels, rows and the table")
    return parser.parse_args()


# ---- where the text comes from ------------------------------------------------------------------------------------


def read_packages(path: Path) -> dict[str, bool]:
    """`name==version` -> is it held out?, in the file's order."""
    lines = [line.partition("#") for line in path.read_text(encoding="utf-8").splitlines()]
    return {pin.strip(): "held out" in note for pin, _, note in lines if pin.strip()}


def fetch(pins: Iterable[str], folder: Path) -> dict[str, Path]:
    """The wheel of each pin, downloaded where it is missing.

    Raises:
        HoneError: pip cannot find one; its own message says why.
    """
    found = _wheels(folder)
    if missing := [pin for pin in pins if pin not in found]:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        done = subprocess.run([sys.executable, "-m", "pip", "download", *options, *missing], check=False)
        found = _wheels(folder)
        missing = [pin for pin in missing if pin not in found]
        if done.returncode or missing:
            fix = "pip's message above says why; take another version, or leave the package out"
            raise HoneError(f"no wheel of {', '.join(missing)}", where=str(PACKAGES), fix=fix)
    return found


def _wheels(folder: Path) -> dict[str, Path]:
    """`name==version`, spelled as in package lists, -> file."""
    split = {path: path.name.split("-") for path in folder.glob("*.whl")}
    return {f"{re.sub(r'[-_.]+', '-', parts[0]).lower()}=={parts[1]}": path for path, parts in split.items()}


def library() -> tuple[Package, Iterator[tuple[str, bytes]]]:
    """The standard library of the Python that runs this."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts)
    package = Package("python", platform.python_version(), "PSF-2.0")
    return package, ((path.relative_to(root).as_posix(), path.read_bytes()) for path in paths)


def wheel(path: Path, held_out: bool) -> tuple[Package, Iterator[tuple[str, bytes]]]:
    """A package and its .py files, (path, content).

    Raises:
        HoneError: its metadata names no permissive licence.
    """
    archive = zipfile.ZipFile(path)
    names = sorted(archive.namelist())
    about = next(name for name in names if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(about))
    package = Package(metadata["Name"], metadata["Version"], licence(metadata), held_out)
    return package, ((name, archive.read(name)) for name in names if name.endswith(".py") and ".data/" not in name)


def licence(metadata: Message) -> str:
    """The licence a package's metadata names, if every part of it is permissive.

    >>> licence(email.message_from_string("License-Expression: GPL-3.0-only OR MIT"))
    'GPL-3.0-only OR MIT'

    Raises:
        HoneError: it is not, or none is named.
    """
    classifiers = [
        line.split(" :: ")[-1] for line in metadata.get_all("Classifier", []) if line.startswith("License ::")
    ]
    named = metadata["License-Expression"] or " AND ".join(name for name in classifiers if name != "OSI Approved")
    named = named or (metadata["License"] or "").strip().split("\n")[0]
    parts = [part.strip(" ()").split(" OR ") for part in re.split(r"\s+AND\s+", named)]
    if not all(any(PERMISSIVE.match(choice.strip(" ()")) for choice in choices) for choices in parts):
        raise HoneError(
            f"not a permissive licence: '{named or 'none named'}'",
            where=metadata["Name"],
            fix="take the package off the list",
        )
    return str(named)


# ---- which files, and what of them --------------------------------------------------------------------------------


def clean(package: Package, files: Iterable[tuple[str, bytes]]) -> list[Document]:
    """The package's files that are worth reading, masked; the others are counted by reason."""
    kept = []
    for path, content in files:
        try:
            text = content.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            package.dropped["not UTF-8"] += 1
            continue
        text = masked(without_notice(text))
        if reason := unfit(path, text):
            package.dropped[reason] += 1
        else:
            kept.append(Document(package, path, text))
    package.files = len(kept)
    return kept


def unfit(path: str, text: str) -> str | None:
    """Why a file is left out, or None."""
    parts, name = PurePosixPath(path).parts[:-1], PurePosixPath(path).name
    if (
        TEST_FOLDERS.intersection(parts)
        or name.startswith("test_")
        or name.endswith("_test.py")
        or name == "conftest.py"
    ):
        return "test"
    if any(VENDORED.match(part) for part in parts):
        return "vendored"
    if NO_PROSE.intersection(parts):
        return "table or demo"
    if len(text) < 200:
        return "short"
    if GENERATED.search(text[:1000]):
        return "generated"
    lines = text.splitlines()
    if len(text) / len(lines) > 100 or max(map(len, lines)) > 1000:
        return "long lines"
    if sum(not c.isascii() for c in text) > 0.02 * len(text):
        return "not English"
    return _unfit_tree(text, len(lines))


def _unfit_tree(text: str, n_lines: int) -> str | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return "does not parse"
    literal = (ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Constant)
    assigned = [n for n in tree.body if isinstance(n, (ast.Assign, ast.AnnAssign)) and isinstance(n.value, literal)]
    in_tables = sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in assigned)
    return "table or demo" if in_tables > 0.5 * n_lines and n_lines > 50 else None


def without_notice(text: str) -> str:
    """The file without the comment at its top if that is a copyright notice; a thousand copies of it teach nothing.

    >>> without_notice("# Copyright A. Nobody\\n# MIT licence\\n\\nimport os\\n")
    'import os\\n'
    """
    top = re.match(r"(#[^\n]*\n|\s*\n)*", text)
    return text[top.end() :] if top and NOTICE.search(top.group()) else text


def small_functions(documents: Iterable[Document]) -> Iterator[Document]:
    """Top-level functions of 3 to 15 lines with a docstring, of training documents, each as its own document."""
    seen: set[bytes] = set()
    for document in documents:
        if document.package.held_out:
            continue
        lines = document.text.splitlines()
        for node in ast.parse(document.text).body:
            if not isinstance(node, ast.FunctionDef) or node.decorator_list or not ast.get_docstring(node):
                continue
            text = "\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n"
            if 3 <= text.count("\n") <= 15 and (digest := _digest(code_lines(text))) not in seen:
                seen.add(digest)
                yield Document(document.package, f"{document.path}:{node.name}", text)


def read_last(documents: Iterable[Document]) -> list[Document]:
    """What the model reads once more while its learning rate falls: plain code in full, one file in 20 of the rest."""
    trained = [document for document in documents if not document.package.held_out]
    rest = [document for document in trained if document.package.name not in PLAIN]
    return [document for document in trained if document.package.name in PLAIN] + rest[::20]


# ---- copies -------------------------------------------------------------------------------------------------------


def without_copies(documents: list[Document]) -> list[Document]:
    """The documents less copies, near copies and training files with a held-out passage; the first of equals stays."""
    seen: set[bytes] = set()
    held_out: set[bytes] = set()
    tables: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]
    kept: list[Document] = []
    sketches: list[np.ndarray] = []
    for document in documents:
        lines = code_lines(document.text)
        found = passages(lines)
        values = sketch("\n".join(lines))
        bands = [band.tobytes() for band in values.reshape(BANDS, -1)]
        near = {i for band, rows in zip(bands, tables) for i in rows.get(band, ())}
        reason = None
        if (digest := _digest(lines)) in seen:
            reason = "copy"
        elif not document.package.held_out and not held_out.isdisjoint(found):
            reason = "held-out passage"
        elif any((sketches[i] == values).mean() >= NEAR for i in near):
            reason = "near copy"
        if reason:
            document.package.dropped[reason] += 1
            continue
        seen.add(digest)
        if document.package.held_out:
            held_out |= found
        for band, rows in zip(bands, tables):
            rows.setdefault(band, []).append(len(kept))
        kept.append(document)
        sketches.append(values)
    return kept


def code_lines(text: str) -> list[str]:
    """Lines without indentation, blank lines and comments: what stays the same in a copy."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def passages(lines: list[str]) -> set[bytes]:
    """Hashes of every `PASSAGE` lines in a row that are long enough to mean something."""
    windows = (lines[at : at + PASSAGE] for at in range(len(lines) - PASSAGE + 1))
    return {_digest(window) for window in windows if sum(map(len, window)) > 20 * PASSAGE}


def sketch(text: str) -> np.ndarray:
    """MinHash (Broder 1997) of a text's word sequences: (SKETCH,) uint64; the share of equal entries estimates the
    share of word sequences that two texts have in common.
    """
    words = np.array([zlib.crc32(word.encode()) for word in re.findall(r"\w+|[^\w\s]", text)], dtype=np.uint64)
    if len(words) < SHINGLE:
        words = np.pad(words, (0, SHINGLE - len(words)))
    random = np.random.default_rng(0)
    factors = random.integers(1 << 63, size=(2, SKETCH), dtype=np.uint64) | np.uint64(1)
    n = len(words) - SHINGLE + 1
    shingles = np.zeros(n, dtype=np.uint64)
    for at in range(SHINGLE):
        shingles = (shingles ^ words[at : at + n]) * np.uint64(0x9E3779B97F4A7C15)
        shingles ^= shingles >> np.uint64(29)
    return np.array([((shingles * a + b) >> np.uint64(16)).min() for a, b in factors.T])


def _digest(lines: list[str]) -> bytes:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=12).digest()


# ---- what is written ----------------------------------------------------------------------------------------------


def write_rows(path: Path, documents: list[Document]) -> None:
    rows = ({"text": d.text, "package": d.package.name, "path": d.path} for d in documents)
    write_text_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def table(packages: list[Package]) -> str:
    """The packages as Markdown, and last a line with the sums."""
    lines = ["| package | licence | | files | kB | dropped |", "| --- | --- | --- | ---: | ---: | --- |"]
    for p in packages:
        split = "held out" if p.held_out else "train"
        dropped = ", ".join(f"{count} {reason}" for reason, count in p.dropped.most_common())
        lines.append(
            f"| {p.name} {p.version} | {p.licence} | {split} | {p.files} | {p.n_bytes / 1e3:,.0f} | {dropped} |"
        )
    total = sum((p.dropped for p in packages), Counter())
    sums = []
    for split, held_out in (("train", False), ("held out", True)):
        chosen = [package for package in packages if package.held_out == held_out]
        n_files, n_bytes = sum(p.files for p in chosen), sum(p.n_bytes for p in chosen)
        sums.append(f"{split}: {n_files:,} files, {n_bytes / 1e6:.1f} MB, {len(chosen)} packages")
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in total.most_common())
    return "\n".join(lines) + "\n\n" + "; ".join(sums) + f"; dropped: {left_out}\n"


if __name__ == "__main__":
    try:
        main()
    except HoneError as error:
        raise SystemExit(f"error: {error}") from None
