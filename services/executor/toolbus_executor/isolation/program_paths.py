"""Find what a command is made of: its program, the interpreter, the tree it was installed into.

Symbolic links are followed one at a time, since each must be there for the next to be found.
"""

import os
import re

# Shown to every server.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
# Of an installation below a prefix: no `share`, where programs of a user keep their secrets.
_INSTALLED = ("bin", "sbin", "lib", "lib64", "libexec", "include")
_INTERPRETER = re.compile(r"(python|pypy|node|deno|bun|ruby|perl|sh|bash|dash|zsh)[0-9.]*")
_OF_NODE = ("node", "deno", "bun")
_MOST_HOPS = 40
_FINDER_ENTRY = re.compile(r"'[\w.]+': '(/[^']+)'")


def found(program: str, path: str) -> str:
    """Where a program is, looked for as a shell would; as it was given where it is nowhere."""
    for directory in path.split(":") if "/" not in program else ():
        place = os.path.join(directory, program)
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.abspath(place)
    return os.path.abspath(program) if "/" in program else program


def made_of(command: list[str], home: str, path: str) -> list[str]:
    """Paths without which the command cannot run, beside the system's own."""
    program = found(command[0], path)
    paths = _installation(program, home, path, 0)
    script = script_of(command)
    if script:
        paths += _links(script)
        paths.append(os.path.realpath(script))
        paths += _of_package(command[0], os.path.realpath(script), home)
    return [each for each in dict.fromkeys(paths) if os.path.lexists(each)]


def script_of(command: list[str]) -> str:
    """The file that an interpreter is told to run; empty where none is."""
    if not _INTERPRETER.fullmatch(os.path.basename(command[0])):
        return ""
    for word in command[1:]:
        if word in ("-c", "-m", "-e", "-p", "--eval", "--print", "-"):
            return ""
        if not word.startswith("-"):
            return os.path.abspath(word) if os.path.isfile(word) else ""
    return ""


def is_below(path: str, *roots: str) -> bool:
    """Whether a path is one of these, or below it."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def links_of(path: str) -> list[tuple[str, str]]:
    """Every symbolic link on the way to a path: where it is, without links, and its text."""
    links: list[tuple[str, str]] = []
    at, left = "/", os.path.abspath(path).split("/")[1:]
    while left and len(links) < _MOST_HOPS:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at)
            continue
        place = os.path.join(at, part)
        try:
            text = os.readlink(place)
        except OSError:
            at = place
            continue
        links.append((place, text))
        at, left = "/" if text.startswith("/") else at, text.split("/") + left
    return links


def _links(path: str) -> list[str]:
    """Places of the links on the way to a path."""
    return [place for place, _text in links_of(path)]


def _installation(program: str, home: str, path: str, depth: int) -> list[str]:
    """What a program's file, each link to it, and its interpreter were installed with."""
    if depth > 4 or not os.path.exists(program):  # noqa: PLR2004 - shells of shells of shells
        return []
    paths: list[str] = []
    for place in (program, *_links(program), os.path.realpath(program)):
        paths += _prefix(place, home)
    for word in _shebang(os.path.realpath(program), path):
        paths += _installation(word, home, path, depth + 1)
    return paths


def _prefix(program: str, home: str) -> list[str]:
    if is_below(program, *SYSTEM):
        return []
    directory = os.path.dirname(program)
    above = os.path.dirname(directory)
    parts = program.split("/")
    if "node_modules" in parts:
        return [program, "/".join(parts[: parts.index("node_modules") + 1])]
    if is_below(home, above):  # a user's own ~/bin: what else is there is not installed with it
        return [program]
    is_environment = os.path.exists(os.path.join(above, "pyvenv.cfg"))
    if is_environment or os.path.basename(directory) == "shims":
        return [above, *_editable(above, home)]
    if os.path.basename(directory) in ("bin", "sbin", "libexec"):
        paths = [os.path.join(above, each) for each in _INSTALLED]
        return [*filter(os.path.isdir, paths), *_editable(above, home)]
    return [program]


def _shebang(program: str, path: str) -> list[str]:
    """The programs that a script's first line names."""
    try:
        with open(program, "rb") as file:
            first = file.read(256).split(b"\n")[0]
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    words = first[2:].decode("utf-8", "replace").split()
    named = [word for word in words if not word.startswith("-") and "=" not in word]
    return [found(word, path) for word in named[:2]]


def _editable(prefix: str, home: str) -> list[str]:
    """Directories outside of a Python's prefix that it imports from: of editable installs."""
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
        with open(file, encoding="utf-8", errors="replace") as told:
            text = told.read(1 << 20)
    except OSError:
        return []
    paths = [*text.splitlines(), *_FINDER_ENTRY.findall(text)]
    return [each for each in paths if each.startswith("/") and os.path.exists(each)]


def _of_package(interpreter: str, script: str, home: str) -> list[str]:
    """The package a script of Node belongs to, with what it depends on."""
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
