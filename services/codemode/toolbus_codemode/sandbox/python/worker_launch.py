"""Script that hardens itself and becomes a Python worker.

Usage: `worker_launch.py COMMON BINARY MEMORY CPU ALLOWED ARGS…`.

The script runs without site packages, so that few modules are imported. COMMON is the path of the
common package. The binary is opened before the change of user, because the unprivileged user may
not reach its path.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.extend(sys.argv[1:2])

from toolbus_codemode.sandbox.linux import seccomp
from toolbus_codemode.sandbox.linux.hardening import Confinement, harden

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/null")
DESCRIPTORS = 64


def main() -> None:
    """Harden this process and replace it by the worker; never return."""
    binary, memory, cpu, allowed, *arguments = sys.argv[2:]
    opened = os.open(binary, os.O_RDONLY | os.O_CLOEXEC)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # messages of a worker may contain text of the program
    held = Confinement(
        int(memory),
        int(cpu),
        parent=0,
        descriptors=DESCRIPTORS,
        readable=(binary, *LIBRARIES),
        rules=seccomp.for_a_loaded_program,
        without_seccomp=allowed == "without-seccomp",
    )
    harden(held)
    os.execve(opened, [binary, *arguments], {})  # noqa: S606 - there is no shell in it


if __name__ == "__main__":
    main()
