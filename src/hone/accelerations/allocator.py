"""Keep freed memory in the process: the next step's tensors then cost no page faults.

glibc gives every large block back to the system when it is freed, so each step of a training asks for the same hundreds
of megabytes again and the kernel clears them page by page: a third of a small model's step on a CPU. Three settings of
mallopt(3) make it keep them. They hold for the whole process; `give_back_freed_memory` empties it by hand.

>>> keep_freed_memory()                                       # True on Linux with glibc # doctest: +SKIP
"""

import ctypes
import gc
import platform

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
TOP_PAD = 64 << 20  # bytes that the heap grows by at a time


def allocator_can_keep() -> bool:
    """Whether the C library's allocator is glibc's, which has these settings."""
    return platform.libc_ver()[0] == "glibc"


def keep_freed_memory() -> bool:
    """Never give freed blocks back, and take large ones from the heap too; False where the allocator is not glibc's."""
    if not allocator_can_keep():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, TOP_PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)


def give_back_freed_memory() -> None:
    """Hand what is free back to the system now: what comes after a training needs less than it did. No-op elsewhere."""
    gc.collect()  # an engine and its callbacks refer to each other
    if allocator_can_keep():
        ctypes.CDLL(None).malloc_trim(0)


def empty_cache(device: torch.device) -> None:
    """Hand what an accelerator's allocator keeps back to the device; no-op on a CPU."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
