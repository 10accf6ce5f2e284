"""Execution of one command, with an exit code and error messages."""

import logging
import os
import sys
from collections.abc import Sequence

from toolbus_cli.app import built
from toolbus_cli.errors import CommandError
from toolbus_common.errors import ToolbusError

INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors are written to standard error."""
    # Connection problems are reported by the command's own error message.
    logging.getLogger().setLevel(logging.CRITICAL)
    app = built()
    try:
        app(args=_without_option(list(words)), prog_name="toolbus")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has exited; Python would report the error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # noqa: BLE001 - no stack trace for users
        return _failed(error)
    return 1


def _without_option(words: list[str]) -> list[str]:
    """Select the context of `--context NAME`, and return the command line without this option.

    Raises:
        CommandError: the name is missing.

    """
    if not words or words[0].partition("=")[0] != "--context":
        return words
    _, equals, name = words[0].partition("=")
    rest = words[1:]
    if not equals and rest:
        name, *rest = rest
    if not name:
        raise CommandError("Write --context NAME; 'toolbus context list' shows all names.", 2)
    os.environ["TOOLBUS_CONTEXT"] = name
    return rest


def _failed(error: Exception) -> int:
    if isinstance(error, CommandError):
        return _report(error.message, error.code)
    if isinstance(error, ToolbusError):
        return _report(error.reason, 1)
    if "TOOLBUS_DEBUG" in os.environ:
        raise error
    message = f"Unexpected error ({type(error).__name__}: {error})"
    return _report(f"{message}; set TOOLBUS_DEBUG=1 to see where.", 1)


def _report(message: str, code: int) -> int:
    sys.stderr.write(message.rstrip() + "\n")
    return code
