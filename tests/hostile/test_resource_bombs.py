"""Rows and configurations that are small to send and large to read: refused with a reason, in bounded memory."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]
MIB = 1 << 20
# The peak of a process that reads a file's rows, without the libraries that training brings.
READ = """
import sys
from pathlib import Path
from hone.data.sources import read_rows
from hone.errors import HoneError
for name in sys.argv[1:]:
    try:
        for row in read_rows([Path(name)], on_bad_row="error", on_skip=print):
            pass
        print(name, "is read")
    except HoneError as error:
        print(error)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) >> 10)
"""


def read_in_a_process(*paths: Path) -> tuple[str, int]:
    """What was said of the files, and the peak memory in MiB."""
    command = [sys.executable, "-c", READ, *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    *said, peak = ended.stdout.splitlines()
    return "\n".join(said), int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's measure of memory")
@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv.gz"])
def test_a_packed_line_of_100_mb(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    opens = {"rows.jsonl.gz": b'{"text": "', "rows.json.gz": b'[{"text": "', "rows.csv.gz": b'text\n"'}[name]
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(opens)
        for _ in range(100):
            file.write(b"a" * MIB)
    assert path.stat().st_size < 4 * MIB
    said, peak = read_in_a_process(path)
    assert said.startswith(str(path)), said
    assert "longer than" in said or "field larger than" in said
    assert peak < 500, f"{peak} MiB"


def parquet_bombs(folder: Path) -> dict[str, str]:
    """Files of a few kilobytes, and what is to be said of each."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    def named(values: list[str], n: int) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(values))

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)

    long, just_allowed = "a" * (36 * MIB), "a" * (28 * MIB)
    turns = pa.StructArray.from_arrays([named(["user"], 100), named([just_allowed], 100)], ["role", "content"])
    tables = {
        "dictionary": (pa.table({"text": named([just_allowed], 1000)}), "unpack to"),
        "row": (pa.table({"text": named([long], 2)}), "row.parquet:1: the row unpacks to 36 MiB, at most 32 MiB"),
        "turns": (pa.table({"messages": lists(turns)}), "unpack to 2,800 MiB"),
        "numbers": (pa.table({"ids": lists(pa.array(np.zeros(20_000_000, np.int64)))}), "unpack to"),
        "zeros": (pa.table({"text": ["c" * MIB] * 150}), "unpack to 150 MiB"),
        "prefixes": (pa.table({"text": ["a" * (8 * MIB)] * 20}), "unpack to"),  # each is said to be as the one before
        "nothing": (pa.table({"ids": lists(pa.nulls(8_000_000, pa.int8()))}), "a row of more than 2,000,000 values"),
    }
    for name, (table, _) in tables.items():
        plain = name in ("zeros", "prefixes")
        ways = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "use_dictionary": not plain}
        ways |= {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}} if name == "prefixes" else {}
        pq.write_table(table, folder / f"{name}.parquet", **ways)
        assert (folder / f"{name}.parquet").stat().st_size < 20_000
    shutil.copyfile(folder / "zeros.parquet", folder / "lies.parquet")
    say_it_is_small(folder / "lies.parquet")
    return {f"{name}.parquet": words for name, (_, words) in tables.items()} | {"lies.parquet": "unpack to 150 MiB"}


def say_it_is_small(path: Path) -> None:
    """Write another number for the size of its column into a parquet file, as long in bytes."""
    import pyarrow.parquet as pq

    size = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    number = 2 * size  # thrift's way to write a number that may be negative, 7 bits a byte
    written = bytes(number >> 7 * i & 127 | 128 for i in range(4)) + bytes([number >> 28])
    before, little = path.read_bytes(), b"\x82\x80\x80\x80\x00"
    assert before.count(written) >= 1 and number >> 35 == 0
    path.write_bytes(before.replace(written, little))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1


def text_bombs(folder: Path) -> dict[str, str]:
    many = "more than 2,000,000 values"
    (folder / "lists.jsonl").write_text('{"text": [' + "[]," * 2_500_000 + "[]]}\n")
    (folder / "lists.json").write_text('[{"text": [' + "[]," * 2_500_000 + "[]]}]")
    (folder / "names.jsonl").write_text("{" + ",".join(f'"{i}":1' for i in range(2_100_000)) + "}\n")
    (folder / "commas.csv").write_text("text\n" + "a," * 2_100_000 + "\n")
    with gzip.open(folder / "lines.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(150):
            file.write(b'{"text": "' + b"a" * MIB + b'"}\n')
    line = json.dumps({"text": "1,2,3,[4]," * 300_000})
    (folder / "fine.jsonl").write_text(f"{line}\n")
    said = dict.fromkeys(("lists.jsonl", "lists.json", "names.jsonl", "commas.csv"), many)
    return said | {"lines.jsonl.gz": "unpack to", "fine.jsonl": "is read"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's measure of memory")
def test_files_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    bombs = parquet_bombs(tmp_path) | text_bombs(tmp_path)
    said, peak = read_in_a_process(*(tmp_path / name for name in bombs))
    lines = [line for line in said.splitlines() if line.startswith(str(tmp_path))]
    assert len(lines) == len(bombs)
    for line, (name, words) in zip(lines, bombs.items(), strict=True):
        assert name in line and words in line, line
    assert peak < 500, f"{peak} MiB"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize("opening", ['{"text": [', '{"text": {"a": '])
def test_json_nested_100_000_deep(project: Path, hone: Hone, refused: Refused, name: str, opening: str) -> None:
    inner = opening.removeprefix('{"text": ')
    (project / name).write_text('{"text": ' + inner * 100_000 + "\n")
    refused(hone("prepare", "cfg.yaml", f"train_file={name}"), f"{name}:1", "not valid JSON")


def test_a_csv_with_a_million_columns(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "wide.csv").write_text(",".join(map(str, range(1_000_000))) + "\n")
    refused(hone("prepare", "cfg.yaml", "train_file=wide.csv"), "wide.csv:1", "1,000,000 columns")


def test_a_parquet_file_with_too_many_columns(project: Path, hone: Hone, refused: Refused) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({str(i): ["x"] for i in range(10_001)}), project / "wide.parquet")
    refused(hone("prepare", "cfg.yaml", "train_file=wide.parquet"), "wide.parquet", "10,001 columns")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_not_waited_for(
    project: Path, hone: Hone, refused: Refused, suffix: str, kind: str
) -> None:
    path = project / f"endless.{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    refused(hone("prepare", "cfg.yaml", f"train_file={path.name}"), "a device or a pipe")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_an_endless_configuration(hone: Hone, refused: Refused) -> None:
    refused(hone("check", "/dev/zero"), "/dev/zero", "too many for a configuration")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 10_000 + "]" * 10_000, "nested too deep"),
        (
            "a: &a [x, x]\n"
            + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu")),
            "aliases",
        ),
        ("a: &a [*a]\n", "refers to itself"),
        ("- " * 10_000 + "x", "nested too deep"),
    ],
    ids=["brackets", "laughs", "itself", "dashes"],
)
def test_yaml_that_is_deep_or_multiplies(project: Path, hone: Hone, refused: Refused, text: str, words: str) -> None:
    (project / "bomb.yaml").write_text(text)
    refused(hone("check", "bomb.yaml"), "bomb.yaml", words)


def test_numbers_of_a_million_digits(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "train.jsonl").write_text('{"text": ' + "9" * 1_000_000 + "}\n")
    refused(hone("prepare", "cfg.yaml"), "train.jsonl:1", "not valid JSON")
    (project / "bomb.yaml").write_text("max_steps: " + "9" * 100_000)
    message = refused(hone("check", "bomb.yaml"), "bomb.yaml:1", "max_steps")
    assert len(message) < 2_000, "the number is not repeated in full"


def test_a_packed_archive_is_not_a_row_file(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "rows.zip").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    refused(hone("prepare", "cfg.yaml", "train_file=rows.zip"), "rows.zip", "unknown kind of file '.zip'")
    (project / "rows.jsonl.gz").write_bytes(b"PK\x03\x04" + json.dumps({"text": "a"}).encode())
    refused(hone("prepare", "cfg.yaml", "train_file=rows.jsonl.gz"), "rows.jsonl.gz", "damaged")
