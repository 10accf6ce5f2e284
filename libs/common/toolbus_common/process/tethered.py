"""Start of a program in a separate process group that ends when its parent ends.

The module runs as a script before any other module of Toolbus is imported (`python -I -S
process/tethered.py …`). The script takes a few milliseconds and no memory, because the program then
replaces the script.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def tethered(
    command: Sequence[str],
    *,
    signal: int = signal.SIGKILL,
    limits: Mapping[str, int] | None = None,
) -> list[str]:
    """Return a command whose process gets `signal` when the caller ends, even by SIGKILL.

    `limits` are resource limits by name without `RLIMIT_`: `NOFILE`, `CORE`, `AS`.
    """
    plan = json.dumps({"parent": os.getpid(), "signal": int(signal), "limits": dict(limits or {})})
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), plan, *command]  # noqa: PTH100


def _main(encoded_plan: str, command: list[str]) -> None:
    plan = json.loads(encoded_plan)
    os.setpgid(0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, plan["signal"], 0, 0, 0)
    if os.getppid() != plan["parent"]:
        sys.exit("the parent process ended before the program started")
    for name, value in plan["limits"].items():
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        maximum = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (maximum, maximum))
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
