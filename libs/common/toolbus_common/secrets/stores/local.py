"""Secrets of this machine: variables of the environment, and files as orchestrators mount them."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from toolbus_common.secrets.references import SecretError

LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables this process was started with."""

    environ: Mapping[str, str]

    def read(self, path: str) -> str:
        """The variable of that name."""
        found = self.environ.get(path)
        if found is None:
            raise SecretError(
                f"The variable {path} is not set; set it where this service is started."
            )
        return found


class Files:
    """Regular files, by absolute path; the line end they usually have is not part of the secret."""

    def read(self, path: str) -> str:
        """The file's text."""
        if not path.startswith("/"):
            raise SecretError(f"file:{path} is no absolute path; begin it with a /.")
        try:
            return _text(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SecretError(f"The file {path} cannot be read: {reason}.") from error


class Unopened:
    """Stands for values of the declaration that this service could not open: it has none."""

    def read(self, path: str) -> str:
        """Raise `SecretError`."""
        raise SecretError(
            f"The value of {path} was sealed for another key than this service has. Give it that "
            "key, in the directory 'sealing' of its state, or the value again by 'toolbus apply'."
        )


def _text(path: str) -> str:
    # Without waiting, since opening a pipe does.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file")
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return raw.decode().removesuffix("\n").removesuffix("\r")
