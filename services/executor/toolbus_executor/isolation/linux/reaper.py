"""Reaping of processes: every descendant is ended, and every exit is collected."""

import os
import signal


def wait_for(program: int, seconds: int | None = None) -> int:
    """Collect exits until the program has ended; return its exit code.

    A program killed after `seconds` of processor time counts as ended by that limit.
    """
    while True:
        ended, status, used = os.wait3(0)
        if ended != program:
            continue
        spent = used.ru_utime + used.ru_stime
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return (
            128 + signal.SIGXCPU if killed and seconds and spent >= seconds else exit_code(status)
        )


def exit_code(status: int) -> int:
    """Return the exit code in shell form: 128 and more is a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def end_descendants() -> None:
    """End all descendants of a subreaper, as orphans become its children."""
    while True:
        for child in children():
            os.kill(child, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def children() -> list[int]:
    """Return the pids of this process's children, zombies included."""
    path = f"/proc/self/task/{os.getpid()}/children"
    try:
        with open(path) as file:
            return [int(each) for each in file.read().split()]
    except FileNotFoundError:  # a kernel without that file: check every process
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_child(pid)]


def _is_child(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


def exit_as(code: int) -> None:
    """Exit with the program's exit code, or with the signal that ended it."""
    number = code - 128
    if number > 0:
        try:
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        except (OSError, ValueError):  # an exit code of the program, not a signal
            pass
    os._exit(code)
