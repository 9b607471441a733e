"""Rows come out whole, in order and in bounded memory, and whatever is wrong is named with file and line."""

import gzip
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone import hub
from hone.data import parquet_process, sources
from hone.data.sources import Row, expand, read_hub_rows, read_rows
from hone.errors import HoneError


def read(*paths: Path) -> list[Row]:
    return list(read_rows(paths, on_bad_row="error", on_skip=_no_skip))


def read_skipping(*paths: Path) -> tuple[list[Row], list[tuple[str, str]]]:
    skipped: list[tuple[str, str]] = []
    rows = list(read_rows(paths, on_bad_row="skip", on_skip=lambda reason, where: skipped.append((reason, where))))
    return rows, skipped


def _no_skip(reason: str, where: str) -> None:
    raise AssertionError(f"nothing may be skipped here: {where} {reason}")


def columns(rows: list[Row]) -> list[dict[str, Any]]:
    return [dict(row.columns) for row in rows]


# --- forms -----------------------------------------------------------------------------------------------------------


def test_json_lines_keep_their_line_numbers_across_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\n   \n{"text": "tw\xc3\xb6"}')
    rows = read(path)
    assert columns(rows) == [{"text": "one"}, {"text": "twö"}]
    assert [row.where for row in rows] == [f"{path}:1", f"{path}:4"]


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        ('[{"text": "a"},\n {"text": "b"}]\n', [1, 2]),
        ('{"data": [{"text": "a"}, {"text": "b"}]}', [1, 2]),
        ('{ "data" : [{"text": "a"}, {"text": "b"}], "version": {"x": [1, "]"]} }\n', [1, 2]),
        ('{"text": "a"}\n{"text": "b"}\n', [1, 2]),
        ('{"text": "a"}\n\n{"text": "b"}\n', [1, 3]),  # JSON lines: the line
        ('{\n "text": "a"\n}\n{\n "text": "b"\n}\n', [1, 2]),
        ('\ufeff\n[{"text": "a"}, {"text": "b"}]', [1, 2]),
    ],
)
def test_every_json_layout(tmp_path: Path, content: str, numbers: list[int]) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    rows = read(path)
    assert columns(rows) == [{"text": "a"}, {"text": "b"}]
    assert [row.line for row in rows] == numbers


def test_csv_with_quotes_line_breaks_and_long_fields(tmp_path: Path) -> None:
    long = "x" * 200_000  # over the csv module's own limit
    path = tmp_path / "a.csv"
    path.write_bytes(f'\ufefftext,label\r\n"two\r\nlines, ""quoted""",1\r\n\r\n{long},0\r\n'.encode())
    rows = read(path)
    assert columns(rows) == [{"text": 'two\r\nlines, "quoted"', "label": "1"}, {"text": long, "label": "0"}]
    assert [row.line for row in rows] == [2, 5]


def test_parquet_over_several_batches(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    wanted = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(2 * parquet_process.SIZES[0] + 1)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(wanted), tmp_path / "a.parquet")
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for name in ("a.parquet", "b.parquet.gz"):
        rows = read(tmp_path / name)
        assert columns(rows) == wanted
        assert rows[-1].where == f"{tmp_path / name}:{len(wanted)}"


def test_gz_of_every_form_reads_the_same(tmp_path: Path) -> None:
    contents = {
        "a.jsonl": '{"text": "ä"}\n',
        "a.json": '[{"text": "ä"}]',
        "a.csv": "text\nä\n",
        "a.txt": "ä",
        "a.md": "ä",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        assert columns(read(tmp_path / f"{name}.gz")) == [{"text": "ä"}], name


def test_a_text_file_is_one_document_with_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n")
    assert read(path) == [Row({"text": "one\r\ntwo\n\n"}, str(path), 0)]
    assert read(path)[0].where == str(path)


# --- big files -------------------------------------------------------------------------------------------------------


def test_a_big_json_list_is_never_held_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    n_items, text = 6000, "word " * 400
    with path.open("w") as stream:
        stream.write("[" + ",\n".join(json.dumps({"text": text}) for _ in range(n_items)) + "]")
    assert path.stat().st_size > 12_000_000
    tracemalloc.start()
    count = sum(1 for _ in read_rows([path], on_bad_row="error", on_skip=_no_skip))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == n_items
    assert peak < 3_000_000


@pytest.mark.parametrize("character", ["x", "\n", " ", "é"])
def test_a_text_without_a_place_to_cut_is_cut_at_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, character: str
) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", 1000)
    monkeypatch.setattr(sources, "MAX_PIECE_CHARACTERS", 4000)
    path = tmp_path / "a.txt"
    path.write_text(character * 20_001, encoding="utf-8", newline="")
    pieces = [row.columns["text"] for row in read(path)]
    assert "".join(pieces) == character * 20_001
    assert max(map(len, pieces)) <= 5000
    assert all(pieces[:-1])


def test_a_file_of_one_mebibyte_comes_in_one_piece_and_a_larger_one_in_two(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    line = "A line of text.\n"
    path.write_text(line * ((1 << 20) // len(line)))
    assert [row.ends for row in read(path)] == [True]
    path.write_text(line * ((1 << 20) // len(line) + 1))
    assert [row.ends for row in read(path)] == [False, True]


# --- bad rows --------------------------------------------------------------------------------------------------------

BAD_LINES = [
    (b'{"text": "a"', "not valid JSON: Expecting ',' delimiter"),
    (b'["text"]', "must be a JSON object with named columns, not a list"),
    (b"null", "not null"),
    (b'"x"', "not a string"),
    (b'{"text": "\xff"}', "not UTF-8: byte 0xff at byte 26 of the file"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"n": ' + b"9" * 5000 + b"}", "not valid JSON"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_stops_or_is_skipped_and_reported(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n' + line + b'\n{"text": "two"}\n')
    with pytest.raises(HoneError) as caught:
        read(path)
    assert reason in caught.value.what
    assert caught.value.where == f"{path}:2"
    assert "on_bad_row=skip" in str(caught.value.fix)
    rows, skipped = read_skipping(path)
    assert columns(rows) == [{"text": "one"}, {"text": "two"}]
    assert [where for _, where in skipped] == [f"{path}:2"]
    assert reason in skipped[0][0]


def test_a_json_document_named_jsonl_is_told_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('[\n {"text": "a"}\n]')
    with pytest.raises(HoneError, match=r"a\.jsonl:1: not valid JSON: .*name it \.json"):
        read(path)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_RECORD_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "' + b"x" * (2 << 20))
    with pytest.raises(HoneError, match="longer than 1 MiB"):
        read(path)


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b'[{"text": "a"},\n\n{"text": }]', 3, "Expecting value"),
        (b'[{"text": "a"}\n{"text": "b"}]', 2, "expected , or ]"),
        (b'[{"text": "a"},\n{"text": "b"', 2, "Expecting ',' delimiter"),
        (b'[{"text": "a"},\n{"text": "b"}', 2, "ends in the middle"),
        (b'[{"text": "a"},\n{"text": "b', 2, "Unterminated string"),
        (b'[{"text": "a"}]\n[', 2, "more text after the end"),
        (b'[{"text": "a"},\n{"text": "\xe4"}]', 2, "not UTF-8: byte 0xe4 at byte 26"),
        (b'[{"text": "a"},\n{"text": "\xc3', 2, "not UTF-8: byte 0xc3 at byte 26"),
    ],
)
@pytest.mark.parametrize("mode", ["error", "skip"])
def test_a_malformed_list_names_the_line_and_is_never_half_skipped(
    tmp_path: Path, content: bytes, where: int, what: str, mode: Any
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(HoneError) as caught:
        list(read_rows([path], on_bad_row=mode, on_skip=_no_skip))
    assert what in caught.value.what
    assert caught.value.where == f"{path}:{where}"


def test_items_that_are_no_objects_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a"}, 12, {"text": "b"}]')
    rows, skipped = read_skipping(path)
    assert [row.line for row in rows] == [1, 3]
    assert skipped == [("a row must be a JSON object with named columns, not a number", f"{path}:2")]


def test_bad_csv_records_cost_one_row_each(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\na,1\nb\nc,1,2\n"d"e,1\n"f\n\xff",0\ng,0\n')
    rows, skipped = read_skipping(path)
    assert columns(rows) == [{"text": "a", "label": "1"}, {"text": "g", "label": "0"}]
    assert rows[-1].line == 8
    assert [where.rsplit(":", 1)[1] for _, where in skipped] == ["3", "4", "5", "6"]
    assert skipped[0][0] == "1 fields where the header has 2 (text, label)"
    assert "not UTF-8: byte 0xff at byte 33" in skipped[3][0]
    with pytest.raises(HoneError, match=r"a\.csv:3: 1 fields"):
        read(path)


def test_a_quote_that_is_never_closed_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\na\n"b\nc\nd\n')
    with pytest.raises(HoneError, match=r"a\.csv:3: a quote is opened here and never closed"):
        read_skipping(path)


def test_two_csv_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,text\na,b\n")
    with pytest.raises(HoneError, match="two columns are named 'text'"):
        read(path)


def test_a_text_that_is_no_utf8_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE_BYTES", 100)
    good, bad = tmp_path / "a.txt", tmp_path / "b.txt"
    good.write_text("fine")
    bad.write_bytes(b"a line\n" * 100 + b"caf\xe9\n" + b"a line\n" * 100)
    rows, skipped = read_skipping(bad, good)
    assert columns(rows) == [{"text": "fine"}]
    assert skipped[0][1] == f"{bad}:101"
    with pytest.raises(HoneError, match=r"b\.txt:101: not UTF-8: byte 0xe9 at byte 703 .*iconv"):
        read(bad)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.txt.gz"])
def test_a_cut_or_damaged_gz_is_named(tmp_path: Path, name: str) -> None:
    noise = random.Random(0).randbytes(60_000).hex()
    content = json.dumps([{"text": noise}]) if "json." in name else f'{{"text": "{noise}"}}\n'
    packed = gzip.compress(content.encode())
    path = tmp_path / name
    damaged = bytes(255 - byte if 1000 < i < 1100 else byte for i, byte in enumerate(packed))
    for raw in (packed[:-20], packed[: len(packed) // 2], b"no gzip at all", damaged):
        path.write_bytes(raw)
        with pytest.raises(HoneError, match="compressed file is cut off or damaged") as caught:
            read(path)
        assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\n \n", "no usable rows"),
        ("a.json", b"[]", "no usable rows"),
        ("a.json", b" \n", "no usable rows"),
        ("a.csv", b"text,label\n", "no usable rows"),
        ("a.parquet", b"PAR1 not really", "not readable as parquet"),
        ("a.xlsx", b"x", "unknown kind of file '.xlsx'"),
        ("train.bin", b"x", "token files (.bin) cannot be read as rows"),
        ("noname", b"x", "unknown kind of file 'noname'"),
    ],
)
def test_files_without_rows(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HoneError) as caught:
        read(tmp_path / name)
    assert what in caught.value.what
    assert str(tmp_path / name) in str(caught.value.where)


# --- folders ---------------------------------------------------------------------------------------------------------


def fill(folder: Path, names: str) -> None:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"text": "a"}')


def names(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_its_readable_files_sorted(tmp_path: Path) -> None:
    fill(
        tmp_path, "b.py a/z.py a.py c/d/e.txt .git/x.py .hidden.py node_modules/m.py __pycache__/p.py .venv/v.py i.png"
    )
    (tmp_path / "a" / "__init__.py").touch()  # empty files are common in packages and teach nothing
    assert names(tmp_path, expand([tmp_path])) == ["a.py", "a/z.py", "b.py", "c/d/e.txt"]


def test_a_readme_beside_rows_is_no_row_but_other_texts_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "train.jsonl more.csv.gz README.md LICENSE.txt")
    assert names(tmp_path, expand([tmp_path])) == ["more.csv.gz", "train.jsonl"]
    fill(tmp_path, "src/model.py")
    with pytest.raises(HoneError, match=r"mixes rows \(more.csv.gz\) and texts \(model.py\)"):
        expand([tmp_path])
    assert names(tmp_path, expand([tmp_path / "**/*.py"])) == ["src/model.py"]


def test_a_pattern_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "src/b.py src/a/c.py src/.venv/x.py src/__pycache__/y.py")
    monkeypatch.chdir(tmp_path)
    assert expand([Path("src/**/*.py")]) == [Path("src/a/c.py"), Path("src/b.py")]
    with pytest.raises(HoneError, match="no data files found"):
        expand([Path("src/**/*.txt")])


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="no such file or folder"):
        expand([tmp_path / "absent.jsonl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(HoneError, match="no data files found here"):
        expand([tmp_path / "empty"])
    with pytest.raises(HoneError, match="no data files given"):
        expand([])


def test_a_name_that_looks_like_a_pattern_is_a_file_if_it_exists(tmp_path: Path) -> None:
    fill(tmp_path, "a[1].txt")
    assert names(tmp_path, expand([tmp_path / "a[1].txt"])) == ["a[1].txt"]


# --- hub -------------------------------------------------------------------------------------------------------------


def test_a_local_data_set_folder_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    rows = list(read_hub_rows(str(folder), None, "train"))
    assert columns(rows) == [{"text": "a"}, {"text": "b"}]
    assert rows[1].where == f"{folder}:2"
    with pytest.raises(HoneError, match="split 'test'"):
        list(read_hub_rows(str(folder), None, "test"))


def test_hub_rows_are_streamed_and_a_dead_network_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    asked: list[dict[str, Any]] = []

    def load_dataset(name: str, config: str | None, **options: Any) -> Iterator[dict[str, str]]:
        asked.append({"name": name, "config": config, **options})
        yield {"text": "a"}
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "in_reach", lambda: True)
    rows = read_hub_rows("owner/name", "small", "train", revision="abc")
    assert next(rows) == Row({"text": "a"}, "owner/name", 1)
    with pytest.raises(HoneError, match="without a network") as caught:
        next(rows)
    assert caught.value.where == "owner/name"
    assert asked == [{"name": "owner/name", "config": "small", "split": "train", "revision": "abc", "streaming": True}]


def test_without_a_network_a_data_set_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither library asks the network again: each has a switch of its own, and both are put back."""
    import datasets
    from huggingface_hub import constants

    seen: list[tuple[bool, bool]] = []

    def load_dataset(*_: Any, **__: Any) -> Any:
        seen.append((constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for library in (constants, datasets.config):
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr("hone.hub.getproxies", dict)
    with pytest.raises(HoneError, match="the hub cannot be reached") as caught:
        next(read_hub_rows("owner/name", None, "train"))
    assert "--with-data" in str(caught.value.fix)
    assert seen == [(True, True)]
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)


def test_a_missing_folder_is_not_looked_up_on_the_hub() -> None:
    with pytest.raises(HoneError, match="no such folder"):
        next(read_hub_rows("./absent", None, "train"))
