"""The time limit of the scan in a thread: detectors stop when it is up (no I/O)."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import local
from time import monotonic


class TimeIsUpError(TimeoutError):
    """The scan took longer than its guard may."""


class _Limit(local):
    until = inf


_limit = _Limit()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Limit the time of the scans in this thread, until the end of the block."""
    before, _limit.until = _limit.until, monotonic() + seconds
    try:
        yield
    finally:
        _limit.until = before


def check_time() -> None:
    """Raise `TimeIsUpError` if the time of the scan in this thread is up."""
    if monotonic() > _limit.until:
        raise TimeIsUpError
