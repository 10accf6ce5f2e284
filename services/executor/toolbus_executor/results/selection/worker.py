"""The process that evaluates expressions: a line with one and its document, a line with what it is.

It may be given anything: it is bounded in memory and time by the system, and killed if it stalls.
"""

import signal
import sys
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

LARGEST_FOUND = 1 << 20  # bytes of what an expression finds
LARGEST_LINE = 40 << 20
CPU_SECONDS = 2.0  # of one answer; on a busy machine it may take longer to come


class SelectionRequest(msgspec.Struct):
    """An expression, and what it is asked of."""

    select: str
    document: Any


class SelectionReply(msgspec.Struct, omit_defaults=True):
    """What was found, or why nothing was."""

    found: Any = None
    why: str = ""


def answer(line: bytes) -> bytes:
    """The line that answers another."""
    try:
        asked = msgspec.json.decode(line, type=SelectionRequest)
        told = SelectionReply(found=jmespath.search(asked.select, asked.document))
        answered = msgspec.json.encode(told)
    except JMESPathError as error:
        return _refused(str(error).partition("\n")[0][:200])
    except (MemoryError, RecursionError):
        return _refused("what it finds is too large or too deep")
    except msgspec.DecodeError:
        return _refused("the result is no JSON")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        return _refused(f"it does not fit the result ({type(error).__name__})")
    if len(answered) > LARGEST_FOUND:
        return _refused(f"what it finds has more than {LARGEST_FOUND} bytes; select less")
    return answered


def _refused(why: str) -> bytes:
    return msgspec.json.encode(SelectionReply(why=why))


def main() -> None:
    """Answer lines until there are none."""
    while line := sys.stdin.buffer.readline(LARGEST_LINE):
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)  # the system ends us then
        sys.stdout.buffer.write(answer(line) + b"\n")
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
