"""Limits a process puts on itself before a program runs: with the standard library alone."""

import resource


def cap(which: int, most: int, grace: int = 0) -> None:
    """Lower one limit for good, `grace` above it the hard one; what is lower already stays."""
    _, hard = resource.getrlimit(which)
    ceiling = most + grace if hard == resource.RLIM_INFINITY else min(most + grace, hard)
    resource.setrlimit(which, (min(most, ceiling), ceiling))
