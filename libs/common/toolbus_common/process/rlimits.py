"""Set resource limits of a process before its program runs, with the standard library alone."""

import resource


def cap(which: int, most: int, grace: int = 0) -> None:
    """Lower a limit permanently, the hard one `grace` above the soft one; lower limits stay."""
    _, hard = resource.getrlimit(which)
    ceiling = most + grace if hard == resource.RLIM_INFINITY else min(most + grace, hard)
    resource.setrlimit(which, (min(most, ceiling), ceiling))
