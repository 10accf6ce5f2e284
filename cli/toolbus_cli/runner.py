"""One command from its words to its exit code: whatever fails is told in a sentence."""

import gc
import os
import sys
from collections.abc import Sequence

from toolbus_cli.app import built
from toolbus_cli.errors import CommandError
from toolbus_common.errors import ToolbusError
from toolbus_common.observability import logging as logs

INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Run one command; the exit code. Whatever fails is told in a sentence."""
    # What a connection logs while it waits is told as the command's own sentence.
    logs.configure("toolbus", "critical", "text")
    app = built(words)
    gc.freeze()  # what is imported stays
    gc.enable()
    try:
        app(args=list(words), prog_name="toolbus")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # noqa: BLE001 - no stack trace for users
        return _failed(error)
    return 1


def _failed(error: Exception) -> int:
    if isinstance(error, CommandError):
        return _told(error.sentence, error.code)
    if isinstance(error, ToolbusError):
        return _told(error.reason, 1)
    if "TOOLBUS_DEBUG" in os.environ:
        raise error
    said = f"Something unexpected failed ({type(error).__name__}: {error})"
    return _told(f"{said}; set TOOLBUS_DEBUG=1 to see where.", 1)


def _told(sentence: str, code: int) -> int:
    sys.stderr.write(sentence.rstrip() + "\n")
    return code
