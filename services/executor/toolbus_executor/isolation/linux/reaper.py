"""Reaping of processes: ends all descendants and collects their exits."""

import os
import signal


def wait_for(program: int, seconds: int | None = None) -> int:
    """Collect exits until the program has ended, and return its exit code.

    If the program was killed after `seconds` of processor time, the exit code is that of `SIGXCPU`.
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
    """Return the exit code as a shell shows it: 128 plus the signal's number after a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def end_descendants() -> None:
    """End all descendants, and collect their exits.

    This process must be a subreaper, so that orphaned descendants become its children.
    """
    while True:
        for child in children():
            os.kill(child, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def children() -> list[int]:
    """Return the pids of this process's children, including zombies."""
    path = f"/proc/self/task/{os.getpid()}/children"
    try:
        with open(path) as file:
            return [int(each) for each in file.read().split()]
    except FileNotFoundError:  # the kernel has no such file: check every process
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_child(pid)]


def _is_child(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


def exit_as(code: int) -> None:
    """Exit with this exit code. For the exit code of a signal, end with this signal."""
    number = code - 128
    if number > 0:
        try:
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        except (OSError, ValueError):  # the code is the program's own exit code, not a signal
            pass
    os._exit(code)
