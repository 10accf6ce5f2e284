"""Private directories of a server on disk, for systems where no file system can be mounted.

Each directory has the name of its supervisor's pid. The supervisor removes it when the server ends.
The next supervisor removes the directories of killed supervisors.
"""

import os

_ALL = "/tmp/toolbus-scratch"
_MODE = 0o711


def make(user: int) -> str:
    """Create the directories `home` and `tmp`, owned by the user, and return their parent.

    Raises `OSError`.
    """
    parent = _parent_dir()
    _sweep(parent)
    path_name = f"{parent}/{os.getpid()}"
    for path in (path_name, f"{path_name}/home", f"{path_name}/tmp"):
        os.mkdir(path, 0o700)
        if user:
            os.chown(path, user, user)
    return path_name


def remove(path_name: str) -> None:
    """Remove the directory without following links. The processes that use it must have ended."""
    try:
        for _at, directories, files, at in os.fwalk(path_name, topdown=False):
            for name in files:
                os.unlink(name, dir_fd=at)
            for name in directories:
                _remove_directory(name, at)
        os.rmdir(path_name)
    except OSError:  # a file cannot be removed: the next supervisor retries
        return


def set_home(home: str, cache: str, tmp: str) -> None:
    """Set the environment variables that locate homes, caches and temporary files.

    Variables that are already set are not changed.
    """
    variables = {
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
        variables["TMPDIR"] = tmp
    for name, path_name in variables.items():
        os.environ.setdefault(name, path_name)


def link_configured(home: str, private_home: str, paths: list[str]) -> None:
    """Create links in the private home to the configured paths below the executor's home."""
    for path in paths:
        if path.startswith(home.rstrip("/") + "/"):
            path_name = private_home + path[len(home.rstrip("/")) :]
            os.makedirs(os.path.dirname(path_name), exist_ok=True)
            os.symlink(path, path_name)


def link_token(private_home: str, token: tuple[str, str]) -> None:
    """Create a link in the private home to the directory of the token file.

    `token` contains the directory, and the path below the home.
    """
    if token[0]:
        path_name = f"{private_home}/{token[1]}"
        os.makedirs(os.path.dirname(path_name), exist_ok=True)
        os.symlink(token[0], path_name)


def _parent_dir() -> str:
    """Return the directory that contains all private directories.

    Raises `PermissionError` if another user owns the directory or can write to it.
    """
    path_name = f"{_ALL}-{os.geteuid()}"
    try:
        os.mkdir(path_name, _MODE)
    except FileExistsError:
        found = os.lstat(path_name)
        is_ours = found.st_uid == os.geteuid() and found.st_mode & 0o170022 == 0o040000  # noqa: PLR2004
        if not is_ours:
            raise PermissionError(
                1,
                f"{path_name} belongs to another user or is writable for others; remove it",
                path_name,
            ) from None
    return path_name


def _sweep(parent: str) -> None:
    """Remove the directories of supervisors that no longer run."""
    for name in os.listdir(parent):
        if name.isdigit() and (int(name) == os.getpid() or not os.path.exists(f"/proc/{name}")):
            remove(f"{parent}/{name}")


def _remove_directory(name: str, at: int) -> None:
    try:
        os.rmdir(name, dir_fd=at)
    except NotADirectoryError:  # a link to a directory
        os.unlink(name, dir_fd=at)
