"""Set resource limits of a process before its program runs, with the standard library alone."""

import resource


def cap(which: int, maximum: int, grace: int = 0) -> None:
    """Lower a resource limit permanently; the hard limit is `grace` above the soft one.

    Limits that are already lower are not changed.
    """
    _, hard = resource.getrlimit(which)
    ceiling = maximum + grace if hard == resource.RLIM_INFINITY else min(maximum + grace, hard)
    resource.setrlimit(which, (min(maximum, ceiling), ceiling))
