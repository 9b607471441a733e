"""Tokens of several files as one array.

>>> TokenFiles([Path("train-00000.bin"), Path("train-00001.bin")], [10, 5], np.dtype("<u2"), 99)[8:12]  # doctest: +SKIP
array([17, 3, 3, 21], dtype=uint16)
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

OPEN_AT_ONCE = 256  # files: each map holds a file descriptor, and a process may have 1,024


class TokenFiles:
    """It has a length, and slices of it are arrays.

    Files are mapped when they are first read, and at most OPEN_AT_ONCE stay so. A copy in another process maps anew.
    """

    def __init__(self, paths: list[Path], sizes: list[int], dtype: np.dtype[Any], largest: int) -> None:
        """sizes: tokens of each file. largest: the largest id in any of them."""
        self.paths, self.dtype, self.largest = paths, dtype, largest
        self.ends = np.cumsum(np.array(sizes, np.int64))
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, wanted: slice) -> np.ndarray:
        """Tokens of a range: a view where it lies in one file, as a document does."""
        start, stop, _ = wanted.indices(len(self))
        number = int(np.searchsorted(self.ends, start, side="right"))
        parts = []
        while start < stop:
            begin, end = int(self.ends[number - 1]) if number else 0, min(stop, int(self.ends[number]))
            parts.append(self._map(number)[start - begin : end - begin])
            start, number = end, number + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, self.dtype), *parts])

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFiles, (self.paths, np.diff(self.ends, prepend=0).tolist(), self.dtype, self.largest)

    def max(self) -> int:
        return self.largest

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            while len(self._maps) >= OPEN_AT_ONCE:
                self._maps.popitem(last=False)
            self._maps[number] = np.memmap(self.paths[number], dtype=self.dtype, mode="r")
        self._maps.move_to_end(number)
        return self._maps[number]
