"""A limit on the memory of this process, which then fails alone before the machine does."""

from __future__ import annotations

from attnshift.errors import UserError

__all__ = ["limit_memory"]


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
