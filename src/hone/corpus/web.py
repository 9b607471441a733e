"""Archives of a crawl (WARC, and WET with texts alone): a page becomes its main text, by trafilatura.

Nothing here depends on what was read before, nor on time: the same page gives the same text in any task, which
datatrove's own blocks for it do not promise (they drop what other pages of the process said, and give up by the clock).

>>> for row in web_rows(Path("crawl.warc.gz"), print): print(row.columns["text"])    # doctest: +SKIP
"""

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hone.data.opening import open_bytes, readable
from hone.data.sources import OnSkip, Row
from hone.errors import HoneError, first_line

if TYPE_CHECKING:
    from warcio.recordloader import ArcWarcRecord

SUFFIXES = (".warc", ".wet")
INSTALL = "pip install 'hone-lm[web]' (or pip install 'warcio>=1.7,<2' 'trafilatura>=2,<3')"
FIX = "fetch it again; `warcio check` reads it whole"
HTML = ("text/html", "application/xhtml+xml")
MAX_PAGE_BYTES = 4 << 20  # what a page holds beyond is no text
CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
HEAD = 1024  # bytes of a page in which it names its encoding: HTML's own rule


def is_web(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def web_files(path: Path) -> list[Path]:
    """The archives that a path or a pattern names, or a folder holds."""
    found = path.rglob("*") if path.is_dir() else path.parent.glob(path.name)
    return sorted(file for file in found if file.is_file() and is_web(file))


def web_rows(path: Path, on_skip: OnSkip) -> Iterator[Row]:
    """The texts of an archive; each is numbered as its record is, and pages that cannot be read are skipped.

    Raises:
        HoneError: warcio or trafilatura is missing, or the archive is damaged or cut off.
    """
    try:
        from trafilatura import extract
        from warcio.archiveiterator import ArchiveIterator
    except ImportError as error:
        what = f"archives of a crawl need more packages: {first_line(error)}"
        raise HoneError(what, where=str(path), fix=INSTALL) from None
    with readable(path), open_bytes(path) as stream:
        number = 0
        try:
            for number, record in enumerate(ArchiveIterator(stream), 1):
                if record.format != "warc":  # an older form, for which warcio takes any text
                    raise HoneError("not a WARC archive", where=f"{path}:{number}", fix=FIX)
                if (content := _content(record, f"{path}:{number}", on_skip)) is None:
                    continue
                if (text := decoded(content, record)) is None:
                    on_skip("the page's encoding is not known", f"{path}:{number}")
                elif record.rec_type == "conversion":
                    yield Row({"text": text}, str(path), number)
                else:
                    yield Row({"text": _main_text(extract, text)}, str(path), number)
        except (OSError, EOFError, zlib.error, HoneError):
            raise
        except Exception as error:  # warcio's own, and AttributeError where a record's head is cut
            what = f"not readable as an archive: {first_line(error)[:200]}"
            raise HoneError(what, where=f"{path}:{number + 1}", fix=FIX) from error
    if not number:
        raise HoneError("an archive without a record", where=str(path), fix=FIX)


def _main_text(extract: Callable[..., str | None], page: str) -> str:
    """Without menus, comments and notices; "" where nothing is left."""
    return extract(page, favor_precision=True, include_comments=False, deduplicate=False) or ""


def _content(record: "ArcWarcRecord", where: str, on_skip: OnSkip) -> bytes | None:
    """What a record of a text or a page holds; None for other records, and for pages that are too long.

    Raises:
        HoneError: the archive ends inside it.
    """
    if record.rec_type == "conversion":
        wanted = (record.rec_headers.get_header("Content-Type") or "text/plain").startswith("text/plain")
    else:
        kind = record.rec_headers.get_header("WARC-Identified-Payload-Type") or _http(record, "Content-Type")
        wanted = record.rec_type == "response" and kind.partition(";")[0].strip().lower() in HTML
    if not wanted:
        return None
    stream, pieces, size = record.content_stream(), [], 0
    while size <= MAX_PAGE_BYTES and (piece := stream.read(1 << 16)):
        pieces.append(piece)
        size += len(piece)
    if size > MAX_PAGE_BYTES:
        on_skip(f"a page of more than {MAX_PAGE_BYTES >> 20} MiB", where)
        return None
    if getattr(record.raw_stream, "limit", 0) > 0:  # what is left of the record's length
        raise HoneError("the archive is cut off", where=where, fix=FIX)
    return b"".join(pieces)


def _http(record: "ArcWarcRecord", name: str) -> str:
    return (record.http_headers.get_header(name) if record.http_headers else None) or ""


def decoded(content: bytes, record: "ArcWarcRecord") -> str | None:
    """UTF-8 where it is, else as the server or the page says."""
    named = CHARSET.search(_http(record, "Content-Type").encode("latin-1", "replace")) or CHARSET.search(content[:HEAD])
    for encoding in ("utf-8", named[1].decode("ascii", "replace") if named else None):
        try:
            if encoding:
                return content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return None
