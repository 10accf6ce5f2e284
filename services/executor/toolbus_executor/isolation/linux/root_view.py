"""Root file system of a server, made of copies of its visible paths.

The system paths and the configured paths are mounted read-only, except for `write` paths. The home,
/tmp and /dev/shm share one file system in memory; its size is limited, and it ends with the
process. No other paths exist.
"""

from __future__ import annotations

import os

from toolbus_executor.isolation.linux import mounts
from toolbus_executor.isolation.program_paths import is_below
from toolbus_executor.isolation.visible_paths import DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import SimpleNamespace

    from toolbus_executor.isolation.visible_paths import VisiblePaths

_QUIET = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC
_SAFE = mounts.NO_SUID | mounts.NO_DEVICES
_SCRATCH = {"home": 0o700, "tmp": 0o1777, "shm": 0o1777}
_FILES_OF_MEBIBYTE = 256  # inodes per MiB of the scratch file system
CACHE = ".cache"  # below the home
_ACCOUNTS = ("/etc/passwd", "/etc/group")  # generated for this view


def build(
    plan: SimpleNamespace, visible_paths: VisiblePaths, user: int, users: int, *, proc: bool
) -> bool:
    """Make the view the root of this mount namespace. Return whether /proc is private.

    `user` is the owner of the private directories. `users` is the namespace that maps the owners of
    files (`user_ids.mapping`). If `proc` is set, the machine's /proc is used when the kernel
    rejects a new one. Raises `OSError`.
    """
    mounts.make_private()
    trees = [(path, tree) for path, tree in _trees(plan, visible_paths, users)]
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
    trees_to_attach = [*own.items(), *((path, tree) for path, tree in trees if path != "/")]
    _make_devices(stage, devices, scratch["shm"])
    # Root owns the kernel settings below /proc even without capabilities, so /proc is read-only for
    # root.
    is_own = _process_files(stage, fallback, writable=bool(user) or plan.uid != 0)
    for path, tree in sorted(trees_to_attach, key=lambda each: each[0].count("/")):
        _attach_at(stage, path, tree)
    _hide(stage, visible_paths)
    if whole < 0:
        _make_links_and_accounts(stage, visible_paths, plan, user)
        mounts.restrict(stage, mounts.READ_ONLY, all_below=False)
    mounts.enter_root(stage)
    return is_own


def _trees(plan: SimpleNamespace, visible_paths: VisiblePaths, users: int) -> list[tuple[str, int]]:
    """Return a detached copy of each visible path, with its mount attributes."""
    taken: dict[str, int] = {}
    system = list(map(os.path.realpath, visible_paths.system))
    for path in _roots([each for each in system if each not in _ACCOUNTS]):
        taken[path] = _tree(path, mounts.READ_ONLY | _SAFE)
    write = list(map(os.path.realpath, visible_paths.write))
    read = _roots([os.path.realpath(each) for each in visible_paths.read])
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
        cache_path = f"{plan.home}/{CACHE}"
        try:
            taken.setdefault(cache_path, _tree(plan.cache, _SAFE, users, must_map=users >= 0))
        except OSError:  # the file system cannot map owners: run without a cache
            plan.cache = ""
    return list(taken.items())


def _roots(paths: list[str]) -> list[str]:
    """Return the paths that are not below another of these paths."""
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
        mounts.restrict(tree, attributes, all_below=True)  # without the mapping of owners
    return tree


def _scratch(stage: str, plan: SimpleNamespace, user: int) -> dict[str, int]:
    """Return detached copies of the directories of a new file system in memory, by name."""
    size = plan.limits["scratch"]
    mounts.mount(
        "tmpfs", stage, _SAFE, f"size={size}m,nr_inodes={size * _FILES_OF_MEBIBYTE},mode=0755"
    )
    opened = {}
    for name, mode in (*_SCRATCH.items(), ("var", 0o1777)):
        target_path = f"{stage}/{name}"
        os.mkdir(target_path)
        os.chmod(target_path, mode)
        if user:
            os.chown(target_path, user, user)
        opened[name] = mounts.tree(target_path)
    mounts.detach(stage)
    return opened


def _devices() -> list[str]:
    return [path for path in (*DEVICES, "/dev/tty") if os.path.exists(path)]


def _make_devices(stage: str, devices: list[tuple[str, int]], shared: int) -> None:
    """Create /dev with the basic devices, private terminals and shared memory."""
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
    """Mount a private /proc, or the machine's /proc if the kernel rejects a private one.

    `fallback` is a detached copy of the machine's /proc, or -1 for none. Return whether /proc is
    private. Raises `OSError` if the kernel rejects a private one and there is no fallback.
    """
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


def _attach_at(stage: str, path: str, tree: int) -> None:
    """Attach a tree below the stage at the path of its original."""
    target_path = f"{stage}{path}"
    if not os.path.lexists(target_path):
        is_directory = os.path.isdir(f"/proc/self/fd/{tree}")
        os.makedirs(target_path if is_directory else os.path.dirname(target_path), exist_ok=True)
        if not is_directory:
            os.close(os.open(target_path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    mounts.attach(tree, target_path)


def _hide(stage: str, visible_paths: VisiblePaths) -> None:
    """Mount empty files and directories over hidden paths."""
    shown = {*map(os.path.realpath, (*visible_paths.read, *visible_paths.write))}
    for path in map(os.path.realpath, visible_paths.hidden):
        target_path = f"{stage}{path}"
        if not is_below(path, *shown) or not os.path.lexists(target_path):
            continue
        if os.path.isdir(target_path):
            below = [each for each in shown if is_below(each, path) and each != path]
            cache_path = [(each, mounts.tree(f"{stage}{each}")) for each in _roots(below)]
            mounts.mount("tmpfs", target_path, _QUIET, "size=64k,mode=0755")
            for each, tree in cache_path:
                _attach_at(stage, each, tree)
            mounts.restrict(target_path, mounts.READ_ONLY, all_below=False)
        else:
            nothing = mounts.tree(f"{stage}/dev/null")
            mounts.restrict(nothing, mounts.READ_ONLY | mounts.NO_DEVICES, all_below=False)
            mounts.attach(nothing, target_path)


def _make_links_and_accounts(
    stage: str, visible_paths: VisiblePaths, plan: SimpleNamespace, user: int
) -> None:
    """Create the symbolic links of the system, and the user and group files."""
    for link, text in visible_paths.links():
        target_path = f"{stage}{link}"
        if os.path.lexists(target_path):
            continue
        try:
            os.makedirs(os.path.dirname(target_path), exist_ok=True)
            os.symlink(text, target_path)
        except OSError:  # the link was deleted meanwhile, and its tree is read-only
            continue
    os.makedirs(f"{stage}/etc", exist_ok=True)
    number, group = (user, user) if user else (os.getuid(), os.getgid())
    for path, line in (
        ("/etc/passwd", f"server:x:{number}:{group}::{plan.home}:/bin/sh\n"),
        ("/etc/group", f"server:x:{group}:\n"),
    ):
        with open(f"{stage}{path}", "w") as file:
            file.write(f"root:x:0:{'0::/root:/bin/sh' if path.endswith('d') else ''}\n{line}")
