"""Resource limits of a process. The module uses only the standard library."""

import resource


def cap(which: int, maximum: int, grace: int = 0) -> None:
    """Lower a resource limit permanently. The hard limit is `maximum` plus `grace`.

    A limit that is already lower is not changed.
    """
    _, hard = resource.getrlimit(which)
    ceiling = maximum + grace if hard == resource.RLIM_INFINITY else min(maximum + grace, hard)
    resource.setrlimit(which, (min(maximum, ceiling), ceiling))
