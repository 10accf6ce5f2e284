"""Nothing is left behind: of what a server started every process is ended, and every end noted."""

import os
import signal


def ends_of(program: int, seconds: int | None = None) -> int:
    """Note the end of every child until the program has ended; its exit code.

    One that computed for so many seconds and would not end at that was killed for it.
    """
    while True:
        ended, status, used = os.wait3(0)
        if ended != program:
            continue
        spent = used.ru_utime + used.ru_stime
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return 128 + signal.SIGXCPU if killed and seconds and spent >= seconds else shown(status)


def shown(status: int) -> int:
    """An exit code, in the way of shells: 128 and more is a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def end_descendants() -> None:
    """End every descendant of a process that inherits orphans: they all become its children."""
    while True:
        for child in children():
            os.kill(child, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def children() -> list[int]:
    """Our children, those that have ended unnoted too."""
    path = f"/proc/self/task/{os.getpid()}/children"
    try:
        with open(path) as told:
            return [int(each) for each in told.read().split()]
    except FileNotFoundError:  # a kernel that does not tell: ask every process
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _ours(pid)]


def _ours(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as told:
            return int(told.read().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


def exit_as(code: int) -> None:
    """End as the program did, by its signal if it was one."""
    number = code - 128
    if number > 0:
        try:
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        except (OSError, ValueError):  # a program's own number, and none of a signal
            pass
    os._exit(code)
