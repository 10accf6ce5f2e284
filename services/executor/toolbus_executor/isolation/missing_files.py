"""Find out which files a server misses, and say which line of its declaration would show them."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from toolbus_executor.isolation.visible_paths import CannotBeHeldError, Places

MOST = 20  # paths remembered of one process
_MOST_CANDIDATES = 200  # looked at, in all
_PATH = re.compile(rb"/[^\s'\"`:;,()<>\[\]{}|*?]{1,1024}")
# How programs say that a file was not to be had.
_SAYS_MISSING = re.compile(
    rb"ENOENT|EACCES|EPERM|EROFS|[Nn]o such file|not found|[Dd]enied|[Rr]ead-only|[Cc]annot|"
    rb"[Cc]an't|not exist|[Ee]rror"
)
_SAYS_READ_ONLY = re.compile(rb"EROFS|[Rr]ead-only")


class Unseen:
    """Files that a process named and is not shown, each with what it wants: to read or to write."""

    def __init__(self, places: Callable[[], Places] | None = None) -> None:
        self.files: dict[str, str] = {}
        self._find = places
        self._places: Places | None = None
        self._left = _MOST_CANDIDATES

    def look_at_words(self, words: Iterable[str], cwd: str) -> None:
        """Take note of words of its command that name files it does not see."""
        for word in words:
            for text in {word, word.partition("=")[2]}:
                if text.startswith(("/", "./", "../")):
                    self._weigh(os.path.normpath(os.path.join(cwd or "/", text)), "read")

    def heed(self, line: bytes) -> None:
        """Take note of files in a line in which something is said to be missing."""
        if self._left <= 0 or len(self.files) >= MOST or not _SAYS_MISSING.search(line):
            return
        wanted = "write" if _SAYS_READ_ONLY.search(line) else "read"
        for found in _PATH.findall(line):
            self._weigh(found.decode("utf-8", "replace").rstrip("."), wanted)

    def _weigh(self, path: str, wanted: str) -> None:
        if self._left <= 0 or len(self.files) >= MOST or self._find is None:
            return
        self._left -= 1
        try:
            self._places = self._places or self._find()
            shown = self._places.shows(path)
        except (CannotBeHeldError, OSError, ValueError):
            return
        if wanted == "write":
            path = path if os.path.lexists(path) else os.path.dirname(path)
        lacks = not shown or (wanted == "write" and shown == "read")
        if lacks and path != "/" and os.path.lexists(path) and not self._places.hides(path):
            self.files[path] = wanted


def unseen_of(
    places: Callable[[Sequence[str], Mapping[str, str]], Places],
    command: Sequence[str],
    environment: Mapping[str, str],
) -> Unseen:
    """What a process that is started like this does not see."""
    return Unseen(lambda: places(command, environment))
