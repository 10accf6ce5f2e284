"""Worker process that evaluates JMESPath expressions. It writes one line for each line it reads.

Expressions and documents are untrusted. Resource limits bound memory and time, and the client kills
a worker that does not reply in time.
"""

import signal
import sys
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

LARGEST_SELECTION = 1 << 20  # bytes of a selection's result
LARGEST_LINE = 40 << 20
CPU_SECONDS = 2.0  # processor time of one evaluation; the elapsed time can be longer


class SelectionRequest(msgspec.Struct):
    """An expression and the document to evaluate it on."""

    select: str
    document: Any


class SelectionReply(msgspec.Struct, omit_defaults=True):
    """The selected value, or the reason why the selection failed."""

    found: Any = None
    why: str = ""


def answer(line: bytes) -> bytes:
    """Return the reply to a request. Both are lines of JSON."""
    try:
        request = msgspec.json.decode(line, type=SelectionRequest)
        reply = SelectionReply(found=jmespath.search(request.select, request.document))
        encoded = msgspec.json.encode(reply)
    except JMESPathError as error:
        return _failed(str(error).partition("\n")[0][:200])
    except (MemoryError, RecursionError):
        return _failed("its result is too large or too deeply nested")
    except msgspec.DecodeError:
        return _failed("the result is not valid JSON")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        return _failed(f"it does not match the result's structure ({type(error).__name__})")
    if len(encoded) > LARGEST_SELECTION:
        return _failed(f"its result exceeds {LARGEST_SELECTION} bytes; select less")
    return encoded


def _failed(why: str) -> bytes:
    return msgspec.json.encode(SelectionReply(why=why))


def main() -> None:
    """Process requests until standard input ends."""
    while line := sys.stdin.buffer.readline(LARGEST_LINE):
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)  # its signal ends this process
        sys.stdout.buffer.write(answer(line) + b"\n")
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
