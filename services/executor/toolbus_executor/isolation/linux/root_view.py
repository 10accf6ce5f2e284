"""Build what a server sees: a root of its own, of copies of the places it is shown.

The system and what is declared are mounted read-only (`write` paths are not); home, /tmp and
/dev/shm are one file system in memory, bounded in size and gone with the process. Nothing else
is there.
"""

from __future__ import annotations

import os

from toolbus_executor.isolation.linux import mounts
from toolbus_executor.isolation.program_paths import is_below
from toolbus_executor.isolation.visible_paths import DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import SimpleNamespace

    from toolbus_executor.isolation.visible_paths import Places

_QUIET = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC
_SAFE = mounts.NO_SUID | mounts.NO_DEVICES
_SCRATCH = {"home": 0o700, "tmp": 0o1777, "shm": 0o1777}
_FILES_OF_MEBIBYTE = 256  # inodes of the scratch space, for each of its MiB
CACHE = ".cache"  # below the home
_ACCOUNTS = ("/etc/passwd", "/etc/group")  # of this view alone


def build(plan: SimpleNamespace, places: Places, user: int, users: int, *, proc: bool) -> bool:
    """Make it the root of this mount namespace; whether /proc shows our own processes alone.

    `user` owns what is private. `users` maps owners of files, see `users.mapping`. `proc` permits
    the machine's /proc where the kernel refuses a new one. Raises `OSError`.
    """
    mounts.make_private()
    trees = [(path, tree) for path, tree in _trees(plan, places, users)]
    fallback = _tree("/proc", mounts.READ_ONLY | _QUIET) if proc else -1
    devices = [(path, _tree(path, mounts.NO_SUID | mounts.NO_EXEC)) for path in _devices()]
    stage = next(filter(os.path.isdir, ("/tmp", "/dev", "/usr")))
    scratch = _scratch(stage, plan, user)
    whole = dict(trees).get("/", -1)
    if whole >= 0:
        mounts.attach(whole, stage)
    else:
        mounts.mount("tmpfs", stage, _SAFE, "size=1m,mode=0755")
    own = {plan.home: scratch["home"], "/tmp": scratch["tmp"], "/var/tmp": scratch["var"]}
    laid = [*own.items(), *((path, tree) for path, tree in trees if path != "/")]
    _devise(stage, devices, scratch["shm"])
    # Without rights root still owns the kernel's settings, which are files below /proc.
    is_own = _process_files(stage, fallback, writable=bool(user) or plan.uid != 0)
    for path, tree in sorted(laid, key=lambda each: each[0].count("/")):
        _lay(stage, path, tree)
    _hide(stage, places)
    if whole < 0:
        _name_things(stage, places, plan, user)
        mounts.restrict(stage, mounts.READ_ONLY, all_below=False)
    mounts.enter_root(stage)
    return is_own


def _trees(plan: SimpleNamespace, places: Places, users: int) -> list[tuple[str, int]]:
    """Detached copies of all that is shown, in the state they are shown in."""
    taken: dict[str, int] = {}
    system = list(map(os.path.realpath, places.system))
    for path in _roots([each for each in system if each not in _ACCOUNTS]):
        taken[path] = _tree(path, mounts.READ_ONLY | _SAFE)
    write = list(map(os.path.realpath, places.write))
    read = _roots([os.path.realpath(each) for each in places.read])
    for path in read:
        if path not in write and not is_below(path, *(each for each in taken if each != "/")):
            devices = 0 if is_below(path, "/dev") else mounts.NO_DEVICES
            taken[path] = _tree(path, mounts.READ_ONLY | mounts.NO_SUID | devices, users)
    for path in _roots(write):
        devices = 0 if is_below(path, "/dev") else mounts.NO_DEVICES
        taken[path] = _tree(path, mounts.NO_SUID | devices, users)
    if plan.token[0]:
        attributes = mounts.READ_ONLY | _QUIET
        taken[f"{plan.home}/{plan.token[1]}"] = _tree(
            plan.token[0], attributes, users, must_map=users >= 0
        )
    if plan.cache:
        kept = f"{plan.home}/{CACHE}"
        try:
            taken.setdefault(kept, _tree(plan.cache, _SAFE, users, must_map=users >= 0))
        except OSError:  # its file system cannot map owners: then nothing is kept
            plan.cache = ""
    return list(taken.items())


def _roots(paths: list[str]) -> list[str]:
    """Of these paths those that are not below another."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not is_below(path, *found) and os.path.exists(path):
            found.append(path)
    return found


def _tree(path: str, attributes: int, users: int = -1, *, must_map: bool = False) -> int:
    tree = mounts.tree(path)
    try:
        mounts.restrict(tree, attributes, users, all_below=True)
    except OSError:
        if users < 0 or must_map:
            os.close(tree)
            raise
        mounts.restrict(tree, attributes, all_below=True)  # then owners are who they are
    return tree


def _scratch(stage: str, plan: SimpleNamespace, user: int) -> dict[str, int]:
    """Copies of the directories of a file system in memory."""
    size = plan.limits["scratch"]
    mounts.mount(
        "tmpfs", stage, _SAFE, f"size={size}m,nr_inodes={size * _FILES_OF_MEBIBYTE},mode=0755"
    )
    opened = {}
    for name, mode in (*_SCRATCH.items(), ("var", 0o1777)):
        place = f"{stage}/{name}"
        os.mkdir(place)
        os.chmod(place, mode)
        if user:
            os.chown(place, user, user)
        opened[name] = mounts.tree(place)
    mounts.detach(stage)
    return opened


def _devices() -> list[str]:
    return [path for path in (*DEVICES, "/dev/tty") if os.path.exists(path)]


def _devise(stage: str, devices: list[tuple[str, int]], shared: int) -> None:
    """Fill /dev: what takes and gives bytes, terminals of our own, memory to share."""
    os.makedirs(f"{stage}/dev", exist_ok=True)
    mounts.mount("tmpfs", f"{stage}/dev", mounts.NO_SUID | mounts.NO_EXEC, "size=64k,mode=0755")
    for path, tree in devices:
        os.close(os.open(f"{stage}{path}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mounts.attach(tree, f"{stage}{path}")
    for name in ("pts", "shm"):
        os.mkdir(f"{stage}/dev/{name}")
    mounts.attach(shared, f"{stage}/dev/shm")
    flags = mounts.NO_SUID | mounts.NO_EXEC
    mounts.mount("devpts", f"{stage}/dev/pts", flags, "newinstance,ptmxmode=0666,mode=0620")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"{stage}/dev/{name}")
    mounts.restrict(f"{stage}/dev", mounts.READ_ONLY, all_below=False)


def _process_files(stage: str, fallback: int, *, writable: bool) -> bool:
    """Show our own processes at /proc; where the kernel refuses that, those of the machine."""
    os.makedirs(f"{stage}/proc", exist_ok=True)
    try:
        mounts.mount("proc", f"{stage}/proc", _QUIET)
        if not writable:
            mounts.restrict(f"{stage}/proc", mounts.READ_ONLY, all_below=False)
    except OSError:
        if fallback < 0:
            raise
        mounts.attach(fallback, f"{stage}/proc")
        return False
    if fallback >= 0:
        os.close(fallback)
    return True


def _lay(stage: str, path: str, tree: int) -> None:
    """Attach a tree where its original is."""
    place = f"{stage}{path}"
    if not os.path.lexists(place):
        is_directory = os.path.isdir(f"/proc/self/fd/{tree}")
        os.makedirs(place if is_directory else os.path.dirname(place), exist_ok=True)
        if not is_directory:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    mounts.attach(tree, place)


def _hide(stage: str, places: Places) -> None:
    """Put nothing in the place of secrets that lie below what is shown."""
    shown = {*map(os.path.realpath, (*places.read, *places.write))}
    for path in map(os.path.realpath, places.hidden):
        place = f"{stage}{path}"
        if not is_below(path, *shown) or not os.path.lexists(place):
            continue
        if os.path.isdir(place):
            below = [each for each in shown if is_below(each, path) and each != path]
            kept = [(each, mounts.tree(f"{stage}{each}")) for each in _roots(below)]
            mounts.mount("tmpfs", place, _QUIET, "size=64k,mode=0755")
            for each, tree in kept:
                _lay(stage, each, tree)
            mounts.restrict(place, mounts.READ_ONLY, all_below=False)
        else:
            nothing = mounts.tree(f"{stage}/dev/null")
            mounts.restrict(nothing, mounts.READ_ONLY | mounts.NO_DEVICES, all_below=False)
            mounts.attach(nothing, place)


def _name_things(stage: str, places: Places, plan: SimpleNamespace, user: int) -> None:
    """Make the links by which places are found, and say who there is."""
    for link, text in places.links():
        place = f"{stage}{link}"
        if os.path.lexists(place):
            continue
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(text, place)
        except OSError:  # it would be in a place that is shown, where it is not any more
            continue
    os.makedirs(f"{stage}/etc", exist_ok=True)
    number, group = (user, user) if user else (os.getuid(), os.getgid())
    for path, line in (
        ("/etc/passwd", f"server:x:{number}:{group}::{plan.home}:/bin/sh\n"),
        ("/etc/group", f"server:x:{group}:\n"),
    ):
        with open(f"{stage}{path}", "w") as file:
            file.write(f"root:x:0:{'0::/root:/bin/sh' if path.endswith('d') else ''}\n{line}")
