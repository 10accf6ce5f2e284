"""Files that a server's process needs but cannot see, as suggestions for the configuration."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from toolbus_executor.isolation.visible_paths import IsolationError, VisiblePaths

MAX_PATHS = 20  # recorded paths per process
_MAX_CANDIDATES = 200  # checked paths per process
_PATH = re.compile(rb"/[^\s'\"`:;,()<>\[\]{}|*?]{1,1024}")
# Words that error messages about missing files contain.
_SAYS_MISSING = re.compile(
    rb"ENOENT|EACCES|EPERM|EROFS|[Nn]o such file|not found|[Dd]enied|[Rr]ead-only|[Cc]annot|"
    rb"[Cc]an't|not exist|[Ee]rror"
)
_SAYS_READ_ONLY = re.compile(rb"EROFS|[Rr]ead-only")


class MissingFiles:
    """Recorder of existing files that a process names but cannot see.

    `files` contains the access that each path needs: `read` or `write`.
    """

    def __init__(self, visible_paths: Callable[[], VisiblePaths] | None = None) -> None:
        self.files: dict[str, str] = {}
        self._find = visible_paths
        self._visible_paths: VisiblePaths | None = None
        self._left = _MAX_CANDIDATES

    def scan_arguments(self, words: Iterable[str], cwd: str) -> None:
        """Record the hidden files that the arguments of the command name."""
        for word in words:
            for text in {word, word.partition("=")[2]}:
                if text.startswith(("/", "./", "../")):
                    self._record(os.path.normpath(os.path.join(cwd or "/", text)), "read")

    def scan(self, line: bytes) -> None:
        """Record the hidden files that an error message names."""
        if self._left <= 0 or len(self.files) >= MAX_PATHS or not _SAYS_MISSING.search(line):
            return
        wanted = "write" if _SAYS_READ_ONLY.search(line) else "read"
        for found in _PATH.findall(line):
            self._record(found.decode("utf-8", "replace").rstrip("."), wanted)

    def _record(self, path: str, wanted: str) -> None:
        if self._left <= 0 or len(self.files) >= MAX_PATHS or self._find is None:
            return
        self._left -= 1
        try:
            self._visible_paths = self._visible_paths or self._find()
            shown = self._visible_paths.shows(path)
        except (IsolationError, OSError, ValueError):
            return
        if wanted == "write":
            path = path if os.path.lexists(path) else os.path.dirname(path)
        lacks = not shown or (wanted == "write" and shown == "read")
        if lacks and path != "/" and os.path.lexists(path) and not self._visible_paths.hides(path):
            self.files[path] = wanted


def missing_files_of(
    visible_paths: Callable[[Sequence[str], Mapping[str, str]], VisiblePaths],
    command: Sequence[str],
    environment: Mapping[str, str],
) -> MissingFiles:
    """Return the recorder of missing files for a process with this command."""
    return MissingFiles(lambda: visible_paths(command, environment))
