"""Memory of this process: a limit, at which it fails alone before the machine does, and what it
does with memory that it frees."""

from __future__ import annotations

import ctypes
import os

from attnshift.errors import UserError

__all__ = ["keep_freed_memory", "limit_memory"]

_VARIABLE = "ATTNSHIFT_KEEP_MEMORY"
_TUNED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")
"""Environment variables by which a user tunes glibc's allocator (mallopt(3))."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and use it again; true if that is so from now
    on.

    glibc gives large blocks back to the kernel as soon as they are free. An attack frees and takes
    the same tensors in every iteration, and the kernel fills each of their pages with zeros anew.
    It acts on glibc alone. The variable ``ATTNSHIFT_KEEP_MEMORY`` = 0 leaves the allocator as it
    is, and so does an environment that tunes it already. ``UserError`` is raised for a value other
    than 0 and 1.
    """
    wanted = os.environ.get(_VARIABLE, "1")
    if wanted not in ("0", "1"):
        raise UserError(f"the variable {_VARIABLE} is {wanted!r}; it must be 0 or 1")
    if wanted == "0" or any(map(os.environ.get, _TUNED_BY)) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # No trimming, whose threshold is unsigned, and no block in a mapping of its own.
    return all([mallopt(_M_TRIM_THRESHOLD, -1) == 1, mallopt(_M_MMAP_MAX, 0) == 1])


def limit_memory(gigabytes: float) -> None:
    """Let allocations fail beyond so many gigabytes (10^9 bytes) of data;
    a micro-batch is then halved.

    What counts is what the process has written to or may write to (RLIMIT_DATA),
    libraries' own data included.
    """
    if not 0.5 <= gigabytes <= 100_000:
        raise UserError(f"`memory_limit` is {gigabytes:g}; it is in gigabytes and must lie between 0.5 and 100000")
    try:
        import resource
    except ModuleNotFoundError:
        raise UserError(
            "`memory_limit` cannot be set: this system has no limit on the memory of a process; leave it out"
        ) from None
    wanted, (_, hard) = int(gigabytes * 1e9), resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise UserError(f"`memory_limit` is {gigabytes:g}, more than the {hard / 1e9:.1f} GB that the system allows")
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
