"""Corpora from archives of a crawl and data sets of the hub: what becomes a document, what is said of the rest."""

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_corpus import hashes, make, prose, write_rows

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install 'hone-lm[corpus]'")

from hone.data.shards import open_corpus
from hone.errors import HoneError

pytest_plugins = ["corpus_fixtures"]
Config = Callable[..., Path]
Record = tuple[str, str, bytes]  # kind, content type, payload


def page(*paragraphs: str, menu: str = "Home News Contact", charset: str = "") -> str:
    """A web page with a menu and a footer around its text."""
    body = "".join(f"<p>{one}</p>" for one in paragraphs)
    return (
        f"<html><head>{charset}<title>A page</title></head><body><nav><ul><li>{menu}</li></ul></nav>"
        f"<article><h1>A river</h1>{body}</article><footer>All rights reserved</footer></body></html>"
    )


def archive(path: Path, records: list[Record]) -> Path:
    """A WARC file, each record packed by itself if the name says so."""
    pytest.importorskip("warcio", reason="warcio is not installed: pip install 'hone-lm[web]'")
    pytest.importorskip("trafilatura", reason="trafilatura is not installed: pip install 'hone-lm[web]'")
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as stream:
        writer = WARCWriter(stream, gzip=path.suffix == ".gz")
        for number, (kind, content_type, payload) in enumerate(records):
            uri = f"https://site{number}.example/"
            if kind == "response":
                http = StatusAndHeaders("200 OK", [("Content-Type", content_type)], protocol="HTTP/1.0")
                record = writer.create_warc_record(uri, kind, payload=io.BytesIO(payload), http_headers=http)
            else:
                record = writer.create_warc_record(
                    uri, kind, payload=io.BytesIO(payload), warc_content_type=content_type
                )
            writer.write_record(record)
    return path


def documents(folder: Path, tokenizer: Any) -> list[str]:
    train, _, _ = open_corpus(folder)
    return [tokenizer.decode(train.tokens[a : b - 1].tolist()) for a, b in zip(train.starts[:-1], train.starts[1:])]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_pages_of_an_archive_become_their_main_text(
    name: str, tmp_path: Path, rng: random.Random, corpus_config: Config, tokenizer: Any
) -> None:
    texts = [prose(rng, 60) for _ in range(4)]
    latin = prose(rng, 40) + " café"
    records: list[Record] = [
        ("warcinfo", "application/warc-fields", b"software: a test\r\n"),
        ("request", "application/http", b"GET / HTTP/1.0\r\n\r\n"),
        ("response", "text/html; charset=utf-8", page(texts[0], texts[1]).encode()),
        ("response", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(500)),
        ("response", "text/html", page(latin, charset='<meta charset="iso-8859-1">').encode("latin-1")),
        ("response", "text/html", page(texts[2]).encode() + b"\xff\xfe"),
        ("conversion", "text/plain", texts[3].encode()),
    ]
    archive(tmp_path / name, records)
    ran = make(corpus_config(tmp_path / name, near=False, validation_percentage=0, quality="off"))
    found = documents(ran.folder, tokenizer)
    assert [text.split() for text in found] == [
        ["A", "river", *texts[0].split(), *texts[1].split()],
        ["A", "river", *latin.split()],
        texts[3].split(),
    ]
    assert {one.reason: one.first for one in ran.manifest.dropped} == {"a row that cannot be read": [f"{name}:6"]}


def test_a_page_gives_the_same_text_whatever_was_read_before(
    tmp_path: Path, rng: random.Random, corpus_config: Config
) -> None:
    """A paragraph that many pages share stays in each: else the bytes would depend on who reads what."""
    shared = prose(rng, 60)
    records = [("response", "text/html", page(shared, prose(rng, 60)).encode()) for _ in range(8)]
    for part in range(2):
        archive(tmp_path / f"{part}.warc.gz", records[4 * part : 4 * part + 4])
    one = make(corpus_config(tmp_path / "*.warc.gz", near=False))
    alone = make(
        corpus_config([str(tmp_path / f"{part}.warc.gz") for part in (1, 0)], near=False),
        f"output_dir={tmp_path / 'b'}",
    )
    assert one.manifest.n_text_bytes == alone.manifest.n_text_bytes
    assert one.manifest.total("train")[0] + one.manifest.total("val")[0] == 8


def test_an_archive_that_is_cut_off_or_none_is_named(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    records = [("response", "text/html", page(prose(rng, 200)).encode()) for _ in range(20)]
    whole = archive(tmp_path / "whole.warc", records).read_bytes()
    packed = archive(tmp_path / "whole.warc.gz", records).read_bytes()
    for name, content, message in (
        ("page.warc", whole[:-200], r"page\.warc:20: the archive is cut off"),
        ("head.warc", whole[: whole.rindex(b"WARC-Target-URI")], r"head\.warc:20: not readable as an archive"),
        ("cut.warc.gz", packed[: len(packed) // 2], r"cut\.warc\.gz: the compressed file is cut off"),
        ("none.warc", b"<html>a page, not an archive</html>\n" * 9, r"none\.warc:1: not a WARC archive"),
        ("empty.warc.gz", gzip.compress(b""), r"empty\.warc\.gz: an archive without a record"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HoneError, match=message):
            make(corpus_config(tmp_path / name, output_dir=str(tmp_path / f"{name}.out")))


def test_a_long_page_is_left_out_in_bounded_memory(
    tmp_path: Path, rng: random.Random, corpus_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.corpus.web.MAX_PAGE_BYTES", 100_000)
    records = [("response", "text/html", page(prose(rng, n)).encode()) for n in (60, 40_000, 70)]
    ran = make(corpus_config(archive(tmp_path / "crawl.warc.gz", records), near=False))
    assert ran.manifest.n_read == 2
    assert [(one.reason, one.first) for one in ran.manifest.dropped] == [
        ("a row that cannot be read", ["crawl.warc.gz:2"])
    ]


def test_without_the_packages_the_line_to_type_is_said(
    tmp_path: Path, corpus_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trafilatura", None)
    (tmp_path / "crawl.warc").write_bytes(b"WARC/1.0\r\n")
    with pytest.raises(HoneError, match=r"(?s)crawl\.warc: archives of a crawl need more packages.*hone-lm\[web\]"):
        make(corpus_config(tmp_path / "crawl.warc"))


def test_languages(tmp_path: Path, rng: random.Random, corpus_config: Config) -> None:
    pytest.importorskip("py3langid", reason="py3langid is not installed: pip install 'hone-lm[corpus]'")
    german = "Der breite Fluss fließt unter der kleinen Brücke, und niemand hat das Wasser je so ruhig gesehen. " * 3
    french = "La rivière coule sous le petit pont et personne n'a jamais vu une eau aussi calme que celle-ci. " * 3
    english = "The wide river runs under the small bridge, and nobody has ever seen its water as calm as this. " * 3
    rows = write_rows(tmp_path / "rows.jsonl", [german, french, english])
    settings = {"quality": "off", "near": False, "validation_percentage": 0}
    ran = make(corpus_config(rows, languages=["en", "de"], **settings))
    assert [(one.reason, one.first) for one in ran.manifest.dropped] == [("of another language", ["rows.jsonl:2"])]
    with pytest.raises(HoneError, match=r"(?s)no such language: english.*there are: .* en "):
        make(corpus_config(rows, languages=["english"], output_dir=str(tmp_path / "other"), **settings))


# ---- data sets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path, rng: random.Random) -> Path:
    """A folder in the layout of the hub: three shards of 40 rows."""
    folder = tmp_path / "data set"
    folder.mkdir()
    for number in range(3):
        write_rows(folder / f"train-{number:05d}-of-00003.jsonl", [prose(rng) for _ in range(40)], licence="mit")
    return folder


def test_a_data_set_is_read_shard_by_shard(dataset: Path, corpus_config: Config, tmp_path: Path) -> None:
    config = corpus_config(None, dataset_name=str(dataset), licence_column="licence", licences=["MIT"])
    ran = make(config)
    assert ran.manifest.n_read == 120 and [one.first for one in ran.manifest.inputs] == [0, 1, 2]
    assert [one.file for one in ran.manifest.inputs] == ["data set"] * 3
    rows = make(corpus_config(dataset, name="files.yaml"), f"output_dir={tmp_path / 'files'}")
    tokens = [name for name in hashes(ran.folder) if name.endswith((".bin", ".npy"))]
    assert {n: hashes(ran.folder)[n] for n in tokens} == {n: hashes(rows.folder)[n] for n in tokens}, (
        "as from its files"
    )


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path, corpus_config: Config) -> None:
    with pytest.raises(HoneError, match="no such folder"):
        make(corpus_config(None, dataset_name=str(tmp_path / "nothing")))


def test_the_hubs_revision_stands_in_the_manifest(
    dataset: Path, corpus_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `datasets` would fetch is played by the folder; the name and the revision are those of the configuration."""
    import datasets

    asked: list[tuple[str, str | None]] = []
    load = datasets.load_dataset

    def played(name: str, config: str | None = None, *, revision: str | None = None, **options: Any) -> Any:
        asked.append((name, revision))
        return load(str(dataset), config, **options)

    monkeypatch.setattr(datasets, "load_dataset", played)
    monkeypatch.setattr("hone.data.sources.no_retries", lambda name: __import__("contextlib").nullcontext(True))
    config = corpus_config(None, dataset_name="owner/texts", dataset_revision="abc123")
    ran = make(config)
    assert set(asked) == {("owner/texts", "abc123")}
    assert {(one.file, one.sha256, one.n_bytes) for one in ran.manifest.inputs} == {("owner/texts", "abc123", None)}
    assert json.loads((ran.folder / "manifest.json").read_text())["n_read"] == 120
