"""Secrets of this machine: environment variables, and files mounted by orchestrators."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from toolbus_common.secrets.references import SecretError

LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment variables of this process."""

    environ: Mapping[str, str]

    def read(self, path: str) -> str:
        """Return the variable of that name."""
        found = self.environ.get(path)
        if found is None:
            raise SecretError(
                f"The variable '{path}' is not set; set it in the environment of this service."
            )
        return found


class Files:
    """Regular files by absolute path. A final line end is not part of the secret."""

    def read(self, path: str) -> str:
        """Return the file's text."""
        if not path.startswith("/"):
            raise SecretError(f"file:{path} is not an absolute path; start it with a /.")
        try:
            return _text(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SecretError(f"The file {path} cannot be read: {reason}.") from error


class Unopened:
    """Stands for encrypted configuration values that this service has no key for."""

    def read(self, path: str) -> str:
        """Raise `SecretError`."""
        raise SecretError(
            f"The value of {path} was encrypted with a key that this service does not have. Copy "
            "the key to the directory 'encryption' of its state directory, or set the value again "
            "with 'toolbus apply'."
        )


def _text(path: str) -> str:
    # Non-blocking, since opening a pipe blocks.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a regular file")
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return raw.decode().removesuffix("\n").removesuffix("\r")
