"""Descriptors with high numbers, which a process with many connections gets."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD, fcntl

HIGH = 1500  # `select` accepts numbers below 1024


@contextmanager
def duplicated_high(descriptor: int) -> Iterator[int]:
    """Yield a duplicate of a descriptor with a number from `HIGH` on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft <= HIGH:
        resource.setrlimit(resource.RLIMIT_NOFILE, (HIGH + 100, hard))
    high = fcntl(descriptor, F_DUPFD, HIGH)
    try:
        yield high
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
