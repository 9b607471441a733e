"""What the C library's allocator keeps for the blocks of a training: more than the blocks, because of the gaps.

glibc takes memory from the system at the end of its heap, gives out the smallest free piece that is large enough,
and joins free neighbours. Blocks of many sizes that come and go leave pieces too small for what comes next; then the
heap grows although much of it is free. This follows every block of a step by those rules, without any memory.

Two habits are glibc's own: large blocks come from the system and go back to it, from a size on that rises to 32 MiB
as they are freed, and the free end of the heap goes back; unless `allocator.keep_freed_memory` turned both off.

>>> heap = Heap(keep=True)
>>> a, b, c = heap.take(1 << 20), heap.take(64), heap.take(1 << 20)
>>> heap.give(a)
>>> d = heap.take(2 << 20)                 # does not fit where `a` was
>>> heap.held >> 20, heap.peak >> 20
(4, 4)
"""

import bisect

ALIGNED = 64  # bytes: PyTorch asks for blocks that begin at a multiple of it, so as much is asked for on top
MAPPED_FROM, MAPPED_FROM_AT_MOST = 128 << 10, 32 << 20  # glibc's M_MMAP_THRESHOLD at the start, and its bound
PAGE = 4096


class Heap:
    """Blocks by address; those taken from the system one by one have negative ones.

    held, peak: bytes of the process's memory, now and at most. keep: as `allocator.keep_freed_memory` leaves it.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.end = self.mapped = self.peak = self._n_mapped = 0
        self.mapped_from, self.trimmed_from = MAPPED_FROM, MAPPED_FROM
        self._taken: dict[int, int] = {}  # address -> size
        self._free: dict[int, int] = {}
        self._free_ends: dict[int, int] = {}  # end -> address
        self._by_size: list[tuple[int, int]] = []  # (size, address) of the free pieces, sorted

    @property
    def held(self) -> int:
        return self.end + self.mapped

    def take(self, n_bytes: int) -> int:
        """Address of a new block: the smallest free piece that fits, or at the end of the heap."""
        size = -(-(n_bytes + 2 * ALIGNED) // ALIGNED) * ALIGNED
        at = bisect.bisect_left(self._by_size, (size, 0))
        if at < len(self._by_size):
            room, address = self._by_size[at]
            self._forget(address)
            if room > size:
                self._remember(address + size, room - size)
        elif not self.keep and size >= self.mapped_from:
            size = -(-size // PAGE) * PAGE
            self._n_mapped += 1
            address = -self._n_mapped
            self.mapped += size
        else:
            address = self.end
            self.end += size
        self._taken[address] = size
        self.peak = max(self.peak, self.held)
        return address

    def give(self, address: int) -> None:
        """Free a block; neighbours that are free become one piece with it."""
        size = self._taken.pop(address)
        if address < 0:
            self.mapped -= size
            if self.mapped_from < size <= MAPPED_FROM_AT_MOST:
                self.mapped_from, self.trimmed_from = size, 2 * size
            return
        if (before := self._free_ends.get(address)) is not None:
            size += self._forget(before)
            address = before
        if address + size in self._free:
            size += self._forget(address + size)
        if address + size == self.end and not self.keep and size > self.trimmed_from:
            self.end = address
        else:
            self._remember(address, size)

    def _remember(self, address: int, size: int) -> None:
        self._free[address] = size
        self._free_ends[address + size] = address
        bisect.insort(self._by_size, (size, address))

    def _forget(self, address: int) -> int:
        size = self._free.pop(address)
        del self._free_ends[address + size]
        del self._by_size[bisect.bisect_left(self._by_size, (size, address))]
        return size
