"""What glibc does with memory that is freed. Other C libraries lack these functions; then nothing happens."""

import ctypes
import sys


def keep_freed() -> None:
    """Keep what is freed for the next step.

    glibc would give large blocks back, and the system would have to clear the pages of the next ones: in a step of a
    large network, hundreds of thousands (docs/network.md).
    """
    mmap_max, trim_threshold = -4, -1  # as malloc.h numbers them
    call_glibc("mallopt", mmap_max, 0)
    call_glibc("mallopt", trim_threshold, 2**31 - 1)


def give_back() -> None:
    """Give back to the system what is free now."""
    call_glibc("malloc_trim", 0)


def call_glibc(name: str, *numbers: int) -> None:
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*numbers)
