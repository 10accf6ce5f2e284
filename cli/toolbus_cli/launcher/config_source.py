"""The configuration file of `toolbus up`: selection, application and reload."""

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
    """A configuration file, and how it was chosen."""

    path: Path
    by: str
    notes_port: int = 0
    host: str = ""  # the address that ingress listens on
    _loaded: tuple[int, int] | None = None
    _seen: tuple[int, int] | None = None  # at the last check

    @property
    def is_demo(self) -> bool:
        """Whether the demo's servers are started."""
        return self.by == DEMO

    def load(self) -> Loaded:
        """Load and validate the file. Raises `ConfigurationError` with every validation error."""
        self._loaded = self._mark()
        return load_file(self.path, {**os.environ, **listening_on(self.host)})

    def changed(self) -> bool:
        """Return whether the file changed since it was loaded; a missing file is not a change.

        A file that changed since the last check is not reported yet, because its writer may not
        have finished.
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
    """Return the given file, else ./toolbus.yaml if it exists, else a newly written demo file."""
    if given is not None:
        return Source(given, FILE)
    if DEFAULT_FILE.exists():
        return Source(DEFAULT_FILE, FILE)
    path = state.root / DEMO_FILE
    demo.write(path, notes_port)
    return Source(path, DEMO, notes_port)


def listening_on(host: str) -> dict[str, str]:
    """Return the environment that sets ingress's address; empty if the address is unknown."""
    return {"TOOLBUS_HTTP_HOST": host} if host else {}


async def apply_first(repository: ConfigRepository, source: Source, loaded: Loaded) -> Applied:
    """Apply the configuration at startup. The demo never replaces an applied configuration."""
    if source.is_demo:
        now = await repository.declared()
        if now.revision and now.by not in ("", DEMO):
            source.by = KEPT
            return Applied((), now.revision)
    return await repository.apply(loaded.configuration, source.by)


async def reload(
    repository: ConfigRepository, source: Source, note: Callable[[str, str], None]
) -> tuple[Loaded, Applied] | None:
    """Apply a changed file. Return None if it is invalid; then nothing was applied."""
    try:
        loaded = source.load()
        print_warnings(source.path, loaded, note)
        applied = await repository.apply(loaded.configuration, source.by)
    except CommandError as error:
        for line in error.message.splitlines():
            note(line, "error")
        return None
    except ToolbusError as error:
        note(error.reason, "error")
        return None
    for change in applied.changes:
        note(f"applied {change}", "info")
    return loaded, applied


def print_warnings(path: Path, loaded: Loaded, note: Callable[[str, str], None]) -> None:
    """Log the warnings of a loaded file."""
    for warning in loaded.warnings:
        note(f"{path}:{warning.line}: {warning}", "warning")
