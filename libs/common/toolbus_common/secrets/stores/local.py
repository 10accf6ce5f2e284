"""Secret stores of this machine: environment variables, and files that orchestrators mount."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from toolbus_common.secrets.references import SecretError

LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """Secret store of this process's environment variables."""

    environ: Mapping[str, str]

    def read(self, path: str) -> str:
        """Return the value of a variable. Raises `SecretError`."""
        found = self.environ.get(path)
        if found is None:
            raise SecretError(
                f"The variable '{path}' is not set; set it in the environment of this service."
            )
        return found


class Files:
    """Secret store of regular files. A line end at the end of a file is not part of the secret."""

    def read(self, path: str) -> str:
        """Return the text of the file at an absolute path. Raises `SecretError`."""
        if not path.startswith("/"):
            raise SecretError(f"file:{path} is not an absolute path; start it with a /.")
        try:
            return _text(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SecretError(f"The file {path} cannot be read: {reason}; correct it.") from error


class Unopened:
    """Placeholder store for encrypted configuration values that this service cannot decrypt."""

    def read(self, path: str) -> str:
        """Raise `SecretError`."""
        raise SecretError(
            f"The value of {path} was encrypted with a key that this service does not have. Copy "
            "the key to the directory 'encryption' of its state directory, or set the value again "
            "with 'toolbus apply'."
        )


def _text(path: str) -> str:
    # Non-blocking, because opening a named pipe would block.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a regular file")
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    return raw.decode().removesuffix("\n").removesuffix("\r")
