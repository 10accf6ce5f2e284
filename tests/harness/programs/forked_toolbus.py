"""Command of `toolbus`, whose `up` forks its services instead of starting them.

Usage: `python forked_toolbus.py WORD…`. The forkserver imports this module and all commands, so
that neither the command nor the services are imported again.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from harness.engines.engine import die_with_parent, installed
from toolbus_cli.app import with_every_command
from toolbus_cli.launcher import up  # noqa: F401 - imported once for all forks
from toolbus_cli.main import main

MODULE = "toolbus_cli.main"  # what the launcher runs services with
_ERRORS = 2  # the last of the standard streams
_DEFAULT = (signal.SIGTERM, signal.SIGCHLD)
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # as Python ignores them when it starts

_execute = asyncio.create_subprocess_exec
with_every_command()


async def _start(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a program, or fork the services that the command line names."""
    if MODULE in command:
        words = command[command.index(MODULE) + 1 :]
        sys.stdout.flush()
        sys.stderr.flush()
        options["preexec_fn"] = partial(
            _serve, words, options["env"], options["pass_fds"], os.getpid()
        )
    return await _execute(*command, **options)


def _serve(
    words: Sequence[str], environment: dict[str, str], passed: Sequence[int], launcher: int
) -> NoReturn:
    """Run services in the child, in place of the program that it would execute."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(signal.SIGTERM)
        _forget_launcher(passed)
        if os.getppid() == launcher:
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = [installed("toolbus"), *words]
            code = main()
    except BaseException:  # noqa: BLE001 - the child must not return to the launcher's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget_launcher(passed: Sequence[int]) -> None:
    """Release the event loop, the signal handlers and the descriptors of the launcher.

    The launcher's objects still exist in the child. They may close a descriptor late, so that its
    number must not be used again: it refers to /dev/null.
    """
    signal.set_wakeup_fd(-1)
    for number in _DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio._set_running_loop(None)
    nothing = os.open(os.devnull, os.O_RDWR)
    opened = [int(each.name) for each in Path("/proc/self/fd").iterdir()]
    for descriptor in opened:
        if descriptor > _ERRORS and descriptor not in (nothing, *passed):
            os.dup2(nothing, descriptor, inheritable=False)


if __name__ == "__main__":
    asyncio.create_subprocess_exec = _start  # type: ignore[assignment]
    sys.argv[0] = installed("toolbus")
    sys.exit(main())
