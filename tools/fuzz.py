"""Coverage-guided fuzzing of what reads other people's files: rows, configurations, answers, model folders.

    make fuzz                              each target for five minutes
    python tools/fuzz.py rows --seconds 60

Needs the extra `fuzz` (atheris). An input may be refused with a HoneError and with nothing else; what else is promised,
each target says. It starts from `tests/fixtures/corpus/<target>`, whose files the ordinary tests replay
(`tests/hostile/test_corpus.py`): a finding becomes a file there. What is found lies in `out/fuzz/<target>`.
"""

import argparse
import gzip
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "tests" / "fixtures" / "corpus"
SUFFIXES = ("jsonl", "json", "csv", "txt", "jsonl.gz", "csv.gz", "json.gz")  # by the first byte
INSTRUMENTED = (
    *("ruamel.yaml", "hone.config", "hone.config.overrides", "hone.data.sources", "hone.data.records"),
    *("hone.data.templates", "hone.data.tokenizer", "hone.grading.extract", "hone.grading.tasks", "hone.models.source"),
)
ROWS = 2000  # of a file, before it is called endless
MEMORY_MB = 4096  # of the fuzzer's process, which has torch's libraries in it

Target = Callable[[bytes, Path], None]


def rows(data: bytes, folder: Path) -> None:
    """Rows are found or refused by file; skipping bad ones gives all that was read before the first of them."""
    if data:
        path = folder / f"rows.{SUFFIXES[data[0] % len(SUFFIXES)]}"
        pack = path.suffix == ".gz" and data[:1].islower()  # else the bytes are taken for the packed file
        _read(path, gzip.compress(data[1:], 1, mtime=0) if pack else data[1:])


def parquet(data: bytes, folder: Path) -> None:
    """As `rows`, of one format: its reader asks a process, and is ten times slower."""
    _read(folder / "rows.parquet", data)


def _read(path: Path, content: bytes) -> None:
    from hone.data.records import examples
    from hone.data.sources import read_rows
    from hone.data.templates import render
    from hone.errors import HoneError

    path.write_bytes(content)
    read: list[Any] = []
    try:
        for row in islice(read_rows([path], on_bad_row="error", on_skip=_never), ROWS):
            read.append(row)
    except HoneError as error:
        assert str(path) in str(error), "the file is not named"
    skipped: list[str] = []
    try:
        again = list(
            islice(read_rows([path], on_bad_row="skip", on_skip=lambda reason, where: skipped.append(where)), ROWS)
        )
    except HoneError:
        pass
    else:
        assert repr(again[: len(read)]) == repr(read), "skipping bad rows changes good ones"
    try:
        for row, example in examples(read, column_mapping={}, on_bad_row="error", on_skip=_never):
            if type(example).__name__ in ("Text", "Pair"):
                text = "".join(segment.text for segment in render(example, "plain", None))
                assert text.encode() is not None, row
    except HoneError as error:
        assert str(path) in str(error), "the row is not named"


def forked(
    program: str, asked: dict[str, Any], modules: Any, *, cpu_seconds: int, memory_bytes: int
) -> tuple[int, str]:
    """As `hone.data.trial.tried`, by a fork: ten times as fast, for the libraries are loaded; more memory."""
    import resource

    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(write_end, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stdout = os.fdopen(1, "w")
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds + 60, cpu_seconds + 60))  # on top of the fuzzer's own
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
        code = 0
        try:
            exec(program, {"asked": asked, "sys": sys, "json": json})
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            code = 1
        sys.stdout.flush()
        os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end) as said:
        text = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: 0, 1: 0}.get(status, status if status > 0 else trial().TOO_SLOW), text.strip()


def trial() -> Any:
    return importlib.import_module("hone.data.trial")


def _never(reason: str, where: str) -> None:
    raise AssertionError(f"skipped, though nothing is to be skipped: {where}: {reason}")


def config(data: bytes, folder: Path) -> None:
    """A configuration that is read is read again from what is written of it; the same as overrides."""
    from hone.config import load_config, resolved_yaml
    from hone.config.overrides import parse_overrides
    from hone.errors import HoneError

    path = folder / "cfg.yaml"
    path.write_bytes(data)
    try:
        read = load_config(path)
    except HoneError as error:
        assert "cfg.yaml" in str(error), "the file is not named"
    else:
        path.write_text(resolved_yaml(read), encoding="utf-8", newline="")
        assert load_config(path) == read, "read again, it is another"
    try:
        tokens = data.decode("utf-8").splitlines()[:20]
        parse_overrides(tokens)
        load_config(None, tokens)
    except (HoneError, UnicodeDecodeError):
        pass


def answers(data: bytes, folder: Path) -> None:
    """Of any answer there is at least one program; its statements are its text; a task's row is one or is refused."""
    from hone.errors import HoneError
    from hone.grading.extract import programs_of, without_end_tokens
    from hone.grading.statements import needed, statements
    from hone.grading.tasks import Task, as_task

    text = data.decode("utf-8", errors="replace")
    found = statements(text)
    assert "".join(one.text for one in found) == text, "statements lose something"
    kept = needed(found, ["f"], asked=["f"])
    assert [one for one in found if one in kept] == kept or len(set(map(id, kept))) == len(kept)
    for prompt in ("def f(x):\n", "Write a function f.", "import math\n\ndef f(x):\n    '''Double x.'''\n"):
        programs = programs_of(Task("t", prompt, "f", ("f",), ("assert f(1)",)), text)
        assert programs and all(isinstance(one, str) for one in programs)
        assert len(set(programs)) == len(programs), "a program is tried twice"
        plain = without_end_tokens(text)
        whole = any(one.endswith(plain) for one in programs)
        assert whole or "```" in text or "~~~" in text, "the answer as it came is left out"
    try:
        columns = json.loads(text)
        if isinstance(columns, dict):
            as_task(columns, "tasks.jsonl:1")
    except (HoneError, ValueError, RecursionError) as error:
        assert not isinstance(error, HoneError) or "tasks.jsonl:1" in str(error)


MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "generation_config.json",
)
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}
MODEL_WORDS = {"auto_map", "Regex", "Replace", "Split", "Sequence", "Unigram", "WordPiece", "Precompiled", "Metaspace"}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_embd": 8, "n_head": 1}


def model(data: bytes, folder: Path) -> None:
    """One file of a model's folder is other than it should be, by the first byte: read, or refused by its folder."""
    from hone.data.tokenizer import continuation_ids, load_tokenizer, start_ids
    from hone.errors import HoneError
    from hone.models.source import check_source

    if not data:
        return
    name = MODEL_FILES[data[0] % len(MODEL_FILES)]
    for path in folder.iterdir():
        path.unlink()
    (folder / "config.json").write_text(json.dumps(GPT2))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / name).write_bytes(data[1:])
    try:
        check_source(str(folder), weights=False)
        tokenizer = load_tokenizer(folder)
        start_ids(tokenizer, ["ab ba", ""], special=False)
        continuation_ids(tokenizer, [" ab\n"], special=True)
    except HoneError as error:
        assert str(folder) in str(error) or "tokenizer" in str(error), "the folder is not named"


TARGETS: dict[str, Target] = {"rows": rows, "parquet": parquet, "config": config, "answers": answers, "model": model}


def words(name: str) -> list[str]:
    """What the fuzzer would find late by itself: the names and marks of each language."""
    from hone.config.aliases import ALIASES
    from hone.config.schema import leaves, section_names
    from hone.data.records import KNOWN_AS, OPTIONAL, REQUIRED

    if name == "config":
        marks = ["null", "true", "~", ".inf", "0x1", "1e-4", "&a", "*a", "<<:", "!!str", "---", "|\n", ">\n", "?"]
        return [*leaves(), *ALIASES, *section_names(), *marks]
    if name == "rows":
        columns = {column for form in (*REQUIRED.values(), *OPTIONAL.values()) for column in form}
        others = {other for known in KNOWN_AS.values() for names in known.values() for other in names}
        marks = ['{"', '": "', '"}\n', "\\ud83d", "\ufeff", '""', "NaN", "1e999", "role", "content"]
        return [*sorted(columns | others), *marks]
    if name == "answers":
        marks = ["```python\n", "~~~\n", '""' + '"', "''" + "'", "\\\n", "<|im_end|>", "if __name__", "\n    ", "\x0c"]
        return [
            *marks,
            *[
                "def",
                "class",
                "async",
                "lambda",
                "import",
                "from",
                "return",
                "global",
                "type",
                "match",
                "case",
                "yield",
                "f(",
                "f:",
                "f=",
            ],
        ]
    return sorted(
        {word for text in (str(TOKENIZER), str(GPT2)) for word in text.replace("'", " ").split()} | MODEL_WORDS
    )


def _escaped(word: str) -> str:
    """A word as libFuzzer reads it."""
    return "".join(chr(b) if 32 < b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in word.encode())


def fuzz(name: str, seconds: int, out: Path) -> None:
    """Run one target; libFuzzer ends the process itself."""
    try:
        import atheris
    except ImportError:
        sys.exit("error: atheris is not installed\n  pip install -e '.[fuzz]' (Linux, Python 3.11 to 3.13)")
    with atheris.instrument_imports(include=["hone", "ruamel"]):
        for module in INSTRUMENTED:
            importlib.import_module(module)
    for module in ("hone.data.parquet", "hone.data.tokenizer_trial"):
        importlib.import_module(module).tried = forked
    grown = out / name / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"hone-fuzz-{name}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    dictionary = work.with_suffix(".words")
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words(name)))
    options = [
        *(
            f"-dict={dictionary}",
            f"-max_total_time={seconds}",
            "-timeout=20",
            f"-rss_limit_mb={MEMORY_MB}",
            "-max_len=4096",
        ),
        *(f"-artifact_prefix={out / name}/", "-print_final_stats=1", str(grown), str(CORPUS / name)),
    ]
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(work)
    atheris.Setup([sys.argv[0], *options], lambda data: TARGETS[name](data, work))
    atheris.Fuzz()
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "fuzz")
    given = parser.parse_args()
    fuzz(given.target, given.seconds, given.out.resolve())
