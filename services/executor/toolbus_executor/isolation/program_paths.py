"""Files that a command needs: its program, its interpreter and their installations.

Symbolic links are resolved one at a time, because each link must be visible to the process.
"""

import os
import re

# These paths are visible to every server.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
# The visible directories of an installation prefix. `share` is not visible, because users' programs
# store secrets there.
_INSTALLED = ("bin", "sbin", "lib", "lib64", "libexec", "include")
_INTERPRETER = re.compile(r"(python|pypy|node|deno|bun|ruby|perl|sh|bash|dash|zsh)[0-9.]*")
_OF_NODE = ("node", "deno", "bun")
_MAX_LINKS = 40
_FINDER_ENTRY = re.compile(r"'[\w.]+': '(/[^']+)'")


def find_program(program: str, path: str) -> str:
    """Return the absolute path of a program, found as a shell finds it.

    A name that is not found is returned unchanged.
    """
    for directory in path.split(":") if "/" not in program else ():
        location = os.path.join(directory, program)
        if os.path.isfile(location) and os.access(location, os.X_OK):
            return os.path.abspath(location)
    return os.path.abspath(program) if "/" in program else program


def files_of(command: list[str], home: str, path: str) -> list[str]:
    """Return the existing paths that a command needs, in addition to the system paths."""
    program = find_program(command[0], path)
    paths = _installation(program, home, path, 0)
    script = script_of(command)
    if script:
        paths += _links(script)
        paths.append(os.path.realpath(script))
        paths += _of_package(command[0], os.path.realpath(script), home)
    return [each for each in dict.fromkeys(paths) if os.path.lexists(each)]


def script_of(command: list[str]) -> str:
    """Return the path of the script that an interpreter runs; empty if there is none."""
    if not _INTERPRETER.fullmatch(os.path.basename(command[0])):
        return ""
    for word in command[1:]:
        if word in ("-c", "-m", "-e", "-p", "--eval", "--print", "-"):
            return ""
        if not word.startswith("-"):
            return os.path.abspath(word) if os.path.isfile(word) else ""
    return ""


def is_below(path: str, *roots: str) -> bool:
    """Return whether a path is one of the roots or below one of them."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def links_of(path: str) -> list[tuple[str, str]]:
    """Return the symbolic links on a path, each as its location and its target text."""
    links: list[tuple[str, str]] = []
    at, left = "/", os.path.abspath(path).split("/")[1:]
    while left and len(links) < _MAX_LINKS:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at)
            continue
        location = os.path.join(at, part)
        try:
            text = os.readlink(location)
        except OSError:
            at = location
            continue
        links.append((location, text))
        at, left = "/" if text.startswith("/") else at, text.split("/") + left
    return links


def _links(path: str) -> list[str]:
    """Return the locations of the symbolic links on a path."""
    return [location for location, _text in links_of(path)]


def _installation(program: str, home: str, path: str, depth: int) -> list[str]:
    """Return the directories in which a program, its links and its interpreter are installed.

    `depth` is the number of interpreters that led to this program; it is limited.
    """
    if depth > 4 or not os.path.exists(program):  # noqa: PLR2004 - nested interpreters
        return []
    paths: list[str] = []
    for location in (program, *_links(program), os.path.realpath(program)):
        paths += _prefix(location, home)
    for word in _shebang(os.path.realpath(program), path):
        paths += _installation(word, home, path, depth + 1)
    return paths


def _prefix(program: str, home: str) -> list[str]:
    if is_below(program, *SYSTEM):
        return []
    directory = os.path.dirname(program)
    parent = os.path.dirname(directory)
    parts = program.split("/")
    if "node_modules" in parts:
        return [program, "/".join(parts[: parts.index("node_modules") + 1])]
    if is_below(home, parent):  # a user's ~/bin contains unrelated files
        return [program]
    is_environment = os.path.exists(os.path.join(parent, "pyvenv.cfg"))
    if is_environment or os.path.basename(directory) == "shims":
        return [parent, *_editable(parent, home)]
    if os.path.basename(directory) in ("bin", "sbin", "libexec"):
        paths = [os.path.join(parent, each) for each in _INSTALLED]
        return [*filter(os.path.isdir, paths), *_editable(parent, home)]
    return [program]


def _shebang(program: str, path: str) -> list[str]:
    """Return the paths of up to two programs in a script's `#!` line."""
    try:
        with open(program, "rb") as file:
            first = file.read(256).split(b"\n")[0]
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    words = first[2:].decode("utf-8", "replace").split()
    named = [word for word in words if not word.startswith("-") and "=" not in word]
    return [find_program(word, path) for word in named[:2]]


def _editable(prefix: str, home: str) -> list[str]:
    """Return the directories outside a Python prefix from which editable installs import."""
    paths: list[str] = []
    library = os.path.join(prefix, "lib")
    for name in os.listdir(library) if os.path.isdir(library) else ():
        packages = os.path.join(library, name, "site-packages")
        if not name.startswith("python3") or not os.path.isdir(packages):
            continue
        for file in os.listdir(packages):
            if file.endswith(".pth") or file.startswith("__editable___"):
                paths += _named_in(os.path.join(packages, file))
    return [each for each in paths if not is_below(home, each)]


def _named_in(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as file_object:
            text = file_object.read(1 << 20)
    except OSError:
        return []
    paths = [*text.splitlines(), *_FINDER_ENTRY.findall(text)]
    return [each for each in paths if each.startswith("/") and os.path.exists(each)]


def _of_package(interpreter: str, script: str, home: str) -> list[str]:
    """Return the package directory of a Node script, which contains its dependencies."""
    if not os.path.basename(interpreter).startswith(_OF_NODE):
        return []
    if "/node_modules/" in script:
        return [script[: script.index("/node_modules/")] + "/node_modules"]
    at = os.path.dirname(script)
    while not is_below(home, at):
        if os.path.exists(os.path.join(at, "package.json")):
            return [at]
        at = os.path.dirname(at)
    return []
