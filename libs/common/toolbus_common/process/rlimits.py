"""Set resource limits of a process before its program runs, with the standard library alone."""

import resource


def cap(which: int, maximum: int, grace: int = 0) -> None:
    """Lower a limit permanently, the hard one `grace` above the soft one; lower limits stay."""
    _, hard = resource.getrlimit(which)
    ceiling = maximum + grace if hard == resource.RLIM_INFINITY else min(maximum + grace, hard)
    resource.setrlimit(which, (min(maximum, ceiling), ceiling))
