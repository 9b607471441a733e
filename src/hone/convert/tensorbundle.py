"""Read the checkpoints that TensorFlow's Saver writes (the TensorBundle format), without TensorFlow.

A bundle `model.ckpt` is an index and its data:

    model.ckpt.index                  a table of LevelDB's format, variable name -> a BundleEntryProto; "" -> the header
    model.ckpt.data-00000-of-00001    the values end to end, little-endian, where the entries say

The table: blocks of (key, value) in the order of the keys, each key without the bytes it shares with the one before; a
block of the handles (offset, size) of those blocks; 48 bytes at the end of the file that say where that block is. Every
block and every value carries a CRC-32C, and every one is checked. Formats: tensorflow/core/lib/io/table_format.txt and
tensorflow/core/protobuf/tensor_bundle.proto in TensorFlow's source.

Not read: compressed tables (the Saver writes none), variables saved in slices, strings, big-endian files.

>>> bundle = open_bundle(Path("124M/model.ckpt"))            # doctest: +SKIP
>>> read_tensor(bundle, "model/wte").shape                   # doctest: +SKIP
(50257, 768)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hone.errors import HoneError

FOOTER_BYTES = 48  # two handles, padded, and the magic number
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
TRAILER_BYTES = 5  # after each block: how it is compressed, and its CRC
MASK_DELTA = 0xA282EAD8  # stored CRCs are rotated and shifted by this, since a CRC over a CRC is a poor one
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # the numbers of tensorflow/core/framework/types.proto
COPY_AGAIN = "the file is damaged or was not copied whole: copy or download it again"


@dataclass(frozen=True)
class Entry:
    """Where one variable's value lies: `size` bytes at `offset` of data file `shard`. dtype: TensorFlow's number."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    masked_crc: int
    sliced: bool


@dataclass(frozen=True)
class Bundle:
    """An index that has been read and checked; values are read one at a time."""

    prefix: Path
    n_shards: int
    entries: dict[str, Entry]

    def data_path(self, shard: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self.n_shards:05d}")


def open_bundle(prefix: Path) -> Bundle:
    """Read the index of the checkpoint `prefix` (the path without ".index").

    Raises:
        HoneError: no such file, no TensorFlow checkpoint, damaged, or of a kind that is not read.
    """
    path = prefix.with_name(f"{prefix.name}.index")
    if not path.is_file():
        raise HoneError("no such file", where=str(path), fix="a checkpoint is its .index and its .data files together")
    data = path.read_bytes()
    if data[-8:] != MAGIC:
        raise HoneError("not the index of a TensorFlow checkpoint, or not all of it", where=str(path), fix=COPY_AGAIN)
    try:
        table = dict(_table(data))
        header = dict(_fields(table.pop(b"")))
        entries = {name.decode("utf-8"): _entry(value) for name, value in table.items()}
        n_shards = _int(header.get(1, 0))
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        if isinstance(error, HoneError):
            raise
        reason = str(error) if type(error) is ValueError else f"unreadable ({type(error).__name__})"
        raise HoneError(f"damaged index: {reason}", where=str(path), fix=COPY_AGAIN) from error
    if header.get(2, 0):
        raise HoneError("big-endian checkpoints are not read", where=str(path), fix="save it on an x86 or ARM machine")
    return Bundle(prefix, n_shards, entries)


def read_tensor(bundle: Bundle, name: str) -> np.ndarray:
    """The value of a variable, its CRC checked; an array of its own.

    Raises:
        HoneError: no such variable, of a kind that is not read, or its data are missing, cut short or damaged.
    """
    entry = bundle.entries.get(name)
    if entry is None:
        raise HoneError(f"no variable '{name}' in this checkpoint", where=str(bundle.prefix))
    path = bundle.data_path(entry.shard)
    if entry.sliced or entry.dtype not in DTYPES:
        kind = "saved in slices" if entry.sliced else f"of TensorFlow's type {entry.dtype}"
        raise HoneError(f"'{name}' is {kind}, which is not read", where=str(path), fix="save plain float32 variables")
    dtype = np.dtype(DTYPES[entry.dtype])
    count = math.prod(entry.shape)
    if entry.size != count * dtype.itemsize:
        what = f"'{name}' has {entry.size} bytes, its shape {entry.shape} needs {count * dtype.itemsize}"
        raise HoneError(what, where=str(path), fix=COPY_AGAIN)
    if not path.is_file():
        raise HoneError("no such file", where=str(path), fix="a checkpoint is its .index and its .data files together")
    if (there := path.stat().st_size) < entry.offset + entry.size:
        what = f"cut short: '{name}' ends at byte {entry.offset + entry.size:,}, the file at {there:,}"
        raise HoneError(what, where=str(path), fix=COPY_AGAIN)
    values = np.fromfile(path, dtype=dtype, count=count, offset=entry.offset)
    if masked(crc32c(values.view(np.uint8))) != entry.masked_crc:
        raise HoneError(f"'{name}' is damaged: its CRC differs", where=str(path), fix=COPY_AGAIN)
    return values.reshape(entry.shape)


# ---- the table ------------------------------------------------------------------------------------------------------


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All (key, value) of a table file."""
    handles = data[-FOOTER_BYTES:]
    at = 0
    for _ in range(2):  # the handle of the metadata, of which a bundle has none
        _, at = _varint(handles, at)
    for _, handle in _block(data, *_handle(handles, at)):
        yield from _block(data, *_handle(handle, 0))


def _handle(data: bytes, at: int) -> tuple[int, int]:
    offset, at = _varint(data, at)
    size, _ = _varint(data, at)
    return offset, size


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the block at `offset`: entries, then where keys are written out in full, then how many such."""
    end = offset + size
    if size < 4 or end + TRAILER_BYTES > len(data) - FOOTER_BYTES:
        raise ValueError(f"a block of {size} bytes at {offset} does not fit in the file")
    if masked(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + TRAILER_BYTES], "little"):
        raise ValueError(f"the CRC of the block at {offset} differs")
    if data[end]:
        raise ValueError(f"the block at {offset} is compressed, which is not read")
    block = data[offset:end]
    n_restarts = int.from_bytes(block[-4:], "little")
    stop = len(block) - 4 * (n_restarts + 1)
    at, key = 0, b""
    while at < stop:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        if at + unshared + length > stop or shared > len(key):
            raise ValueError(f"an entry of the block at {offset} runs past its end")
        key = key[:shared] + block[at : at + unshared]
        at += unshared + length
        yield key, block[at - length : at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, the lowest first; and where the next thing begins."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")


# ---- protocol buffers -----------------------------------------------------------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer: whole numbers for numbers, bytes for everything with a length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {number} has the unknown kind {kind}")
        if at + length > len(message):
            raise ValueError(f"field {number} runs past the end of its message")
        raw = message[at : at + length]
        yield number, raw if kind == 2 else int.from_bytes(raw, "little")
        at += length


def _entry(message: bytes) -> Entry:
    """BundleEntryProto: dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6, slices 7; absent is 0."""
    found = list(_fields(message))
    fields = dict(found)
    shape = _bytes(fields.get(2, b""))
    dims = [_bytes(value) for number, value in _fields(shape) if number == 2]  # TensorShapeProto.dim
    return Entry(
        dtype=_int(fields.get(1, 0)),
        shape=tuple(_int(dict(_fields(dim)).get(1, 0)) for dim in dims),  # Dim.size
        shard=_int(fields.get(3, 0)),
        offset=_int(fields.get(4, 0)),
        size=_int(fields.get(5, 0)),
        masked_crc=_int(fields.get(6, 0)),
        sliced=7 in fields,
    )


def _int(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise ValueError("bytes where a number was expected")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("a number where a message was expected")


# ---- CRC-32C --------------------------------------------------------------------------------------------------------

POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first (RFC 3720, appendix B.4)
LANES = 4096  # 32-bit words side by side


def masked(crc: int) -> int:
    """A CRC as files of this format store it."""
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C of bytes, or of a contiguous array (n,) uint8.

    A CRC is a remainder, and equal remainders may replace each other: rows of LANES words are folded into the row
    that has the same remainder, all lanes at once, and only that row and the tail go byte by byte (0.8 GB/s a core).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    values = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
    n_rows = len(values) // (4 * LANES)
    state = 0xFFFFFFFF
    if n_rows >= 2:
        rows = values[: n_rows * 4 * LANES].view("<u4").reshape(n_rows, LANES)
        low, high = _past_a_row()
        folded = rows[0].copy()
        folded[0] ^= np.uint32(state)  # a CRC begins by flipping the first 32 bits
        state = 0
        for row in rows[1:]:
            halves = folded.view("<u2").reshape(LANES, 2)
            folded = low[halves[:, 0]] ^ high[halves[:, 1]] ^ row
        values = np.concatenate([folded.view(np.uint8), values[n_rows * 4 * LANES :]])
    table = _byte_table()
    for byte in values.tobytes():
        state = table[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


@cache
def _byte_table() -> tuple[int, ...]:
    """What eight steps of the shift register make of each byte."""
    table = []
    for state in range(256):
        for _ in range(8):
            state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
        table.append(state)
    return tuple(table)


@cache
def _past_a_row() -> tuple[np.ndarray, np.ndarray]:
    """What a word becomes when one row of zeros follows it, by its low and by its high half: two (65536,) uint32.

    The step is linear: it is taken for each of the 32 bits, and any word is the XOR of its bits.
    """
    table = np.array(_byte_table(), dtype=np.uint32)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(4 * LANES):
        bits = table[bits & 0xFF] ^ bits >> np.uint32(8)
    halves = []
    for start in (0, 16):
        half = np.zeros(1 << 16, dtype=np.uint32)
        for i in range(16):
            half[1 << i : 2 << i] = half[: 1 << i] ^ bits[start + i]
        halves.append(half)
    return halves[0], halves[1]
