"""Where `toolbus up` takes its configuration from, and what happens when it changes."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolbus_cli.config_file import load_file
from toolbus_cli.errors import CommandError
from toolbus_cli.launcher import demo_config as demo
from toolbus_cli.state_dir import State
from toolbus_common.config_store.loading.loader import Loaded
from toolbus_common.config_store.repository import Applied, ConfigRepository
from toolbus_common.errors import ToolbusError

DEFAULT_FILE = Path("toolbus.yaml")
DEMO_FILE = "demo.yaml"
DEMO, FILE, KEPT = "demo", "file", "kept"


@dataclass(slots=True)
class Source:
    """A configuration file, and whether it is the demo's own."""

    path: Path
    by: str
    notes_port: int = 0
    host: str = ""  # what the gateway listens on
    _loaded: tuple[int, int] | None = None
    _seen: tuple[int, int] | None = None  # at the last look

    @property
    def is_demo(self) -> bool:
        """Whether the demo's servers are wanted."""
        return self.by == DEMO

    def load(self) -> Loaded:
        """The checked file. Raises `ConfigurationError` with every fault."""
        self._loaded = self._mark()
        return load_file(self.path, {**os.environ, **listening_on(self.host)})

    def changed(self) -> bool:
        """Whether the file differs from when it was last loaded; a missing file is left alone.

        So is one that changed since the last look: whoever writes it may have only emptied it yet.
        """
        mark, before = self._mark() if self.by != KEPT else None, self._seen
        self._seen = mark
        return mark is not None and mark == before and mark != self._loaded

    def _mark(self) -> tuple[int, int] | None:
        try:
            seen = self.path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size


def choose(given: Path | None, state: State, notes_port: int) -> Source:
    """The file that was named, else ./toolbus.yaml, else the demo's."""
    if given is not None:
        return Source(given, FILE)
    if DEFAULT_FILE.exists():
        return Source(DEFAULT_FILE, FILE)
    path = state.root / DEMO_FILE
    demo.write(path, notes_port)
    return Source(path, DEMO, notes_port)


def listening_on(host: str) -> dict[str, str]:
    """Return what the environment of ingress says of its address; nothing where that is unknown."""
    return {"TOOLBUS_HTTP_HOST": host} if host else {}


async def apply_first(desk: ConfigRepository, source: Source, loaded: Loaded) -> Applied:
    """Apply at the start; the demo steps back for a configuration applied by other means."""
    if source.is_demo:
        now = await desk.declared()
        if now.revision and now.by not in ("", DEMO):
            source.by = KEPT
            return Applied((), now.revision)
    return await desk.apply(loaded.declaration, source.by)


async def reload(
    desk: ConfigRepository, source: Source, note: Callable[[str, str], None]
) -> tuple[Loaded, Applied] | None:
    """Apply a changed file; one with faults changes nothing. None when nothing was applied."""
    try:
        loaded = source.load()
        tell_warnings(source.path, loaded, note)
        applied = await desk.apply(loaded.declaration, source.by)
    except CommandError as error:
        for line in error.sentence.splitlines():
            note(line, "error")
        return None
    except ToolbusError as error:
        note(error.reason, "error")
        return None
    for change in applied.changes:
        note(f"applied {change}", "info")
    return loaded, applied


def tell_warnings(path: Path, loaded: Loaded, note: Callable[[str, str], None]) -> None:
    """What is allowed but probably not meant."""
    for warning in loaded.warnings:
        note(f"{path}:{warning.line}: {warning}", "warning")
