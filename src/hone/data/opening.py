"""Files of rows as bytes: unpacked as they are read, never to far more than they hold; what is wrong, said."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone.errors import HoneError

BOM = b"\xef\xbb\xbf"
PLENTY_BYTES, PLENTY_TIMES = 128 << 20, 200  # what unpacks to more, and to so many times what it holds, is refused
FIX = "the file is damaged, or made to take all memory; if it is yours, write it again without compression"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the operating system or gzip says about a file into one message that names it."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fix = "fetch or pack it again; `gzip -t` checks it"
        raise HoneError(f"the compressed file is cut off or damaged ({error})", where=str(path), fix=fix) from error
    except OSError as error:
        raise HoneError(f"cannot read: {error.strerror or error}", where=str(path)) from error


class _Unpacked(gzip.GzipFile):
    """A packed file that is refused once it has given far more than it holds."""

    given = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.given += len(found)
        refuse_unpacked(self.given, Path(str(self.name)))
        return found


def open_bytes(path: Path) -> "io.BufferedReader[Any]":
    """The file's bytes, unpacked, from behind a byte order mark if there is one."""
    packed = path.suffix.lower() == ".gz"
    stream: io.BufferedReader[Any] = io.BufferedReader(_Unpacked(path)) if packed else path.open("rb")
    if stream.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))
    return stream


def refuse_unpacked(n_bytes: int, path: Path) -> None:
    """Raise a HoneError where a file has unpacked to far more than it holds; texts pack to a tenth at best."""
    if n_bytes > PLENTY_BYTES and n_bytes > PLENTY_TIMES * path.stat().st_size:
        raise HoneError(
            f"{path.stat().st_size:,} bytes unpack to {n_bytes >> 20:,} MiB or more", where=str(path), fix=FIX
        )
