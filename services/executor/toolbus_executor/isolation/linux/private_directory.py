"""Keep what is private to a server in a directory on disk, where no file system can be mounted.

Each lies below one directory of ours, by the number of its supervisor, which removes it at the
end; what one left that was killed, the next removes.
"""

import os

_ALL = "/tmp/toolbus-scratch"
_MODE = 0o711


def make(user: int) -> str:
    """Make the directories `home` and `tmp`; they are that user's. Raises `OSError`."""
    above = _above()
    _sweep(above)
    place = f"{above}/{os.getpid()}"
    for path in (place, f"{place}/home", f"{place}/tmp"):
        os.mkdir(path, 0o700)
        if user:
            os.chown(path, user, user)
    return place


def remove(place: str) -> None:
    """Remove it all; links are not followed, and who wrote there has ended."""
    try:
        for _at, directories, files, at in os.fwalk(place, topdown=False):
            for name in files:
                os.unlink(name, dir_fd=at)
            for name in directories:
                _remove_directory(name, at)
        os.rmdir(place)
    except OSError:  # something may not be removed: the next supervisor tries again
        return


def give_home(home: str, cache: str, tmp: str) -> None:
    """Name them in the environment, in the words programs look for; what is declared stays."""
    places = {
        "HOME": home,
        "XDG_CACHE_HOME": cache,
        "npm_config_cache": f"{cache}/npm",
        "PIP_CACHE_DIR": f"{cache}/pip",
        "UV_CACHE_DIR": f"{cache}/uv",
        "UV_TOOL_DIR": f"{cache}/uv-tools",
        "UV_PYTHON_INSTALL_DIR": f"{cache}/uv-python",
        "DENO_DIR": f"{cache}/deno",
        "BUN_INSTALL_CACHE_DIR": f"{cache}/bun",
    }
    if tmp:
        places["TMPDIR"] = tmp
    for name, place in places.items():
        os.environ.setdefault(name, place)


def link_declared(home: str, theirs: str, paths: list[str]) -> None:
    """Let paths below our own home be found below the private one."""
    for path in paths:
        if path.startswith(home.rstrip("/") + "/"):
            place = theirs + path[len(home.rstrip("/")) :]
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(path, place)


def link_token(theirs: str, token: tuple[str, str]) -> None:
    """Let a directory with a token be found below the private home."""
    if token[0]:
        place = f"{theirs}/{token[1]}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(token[0], place)


def _above() -> str:
    """The directory of all of them, which nobody else may have made."""
    place = f"{_ALL}-{os.geteuid()}"
    try:
        os.mkdir(place, _MODE)
    except FileExistsError:
        found = os.lstat(place)
        is_ours = found.st_uid == os.geteuid() and found.st_mode & 0o170022 == 0o040000  # noqa: PLR2004
        if not is_ours:
            raise PermissionError(
                1, f"{place} belongs to somebody else; remove it", place
            ) from None
    return place


def _sweep(above: str) -> None:
    """Remove what belongs to no process any more."""
    for name in os.listdir(above):
        if name.isdigit() and (int(name) == os.getpid() or not os.path.exists(f"/proc/{name}")):
            remove(f"{above}/{name}")


def _remove_directory(name: str, at: int) -> None:
    try:
        os.rmdir(name, dir_fd=at)
    except NotADirectoryError:  # a link to one
        os.unlink(name, dir_fd=at)
