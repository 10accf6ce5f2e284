"""The lite form: all services in the process of the launcher, and events in a file."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from toolbus_cli.errors import CommandError
from toolbus_common.config import Configuration
from toolbus_common.errors import UnavailableError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENT_STORE, INSTALLATION
from toolbus_common.observability.logging import JsonFormatter
from toolbus_common.observability.otlp_env import OtlpError
from toolbus_common.secrets.references import SecretError
from toolbus_common.service.names import SERVICES
from toolbus_common.settings import EVENTS_FILE, SettingError, Settings
from toolbus_common.tls_files import TlsFileError

if TYPE_CHECKING:
    from toolbus_common.service.service import Service

READY_SECONDS = 120.0
LOOK_SECONDS = 0.02
_FORWARD = Callable[[str, str], None]


def environment(state_dir: Path) -> dict[str, str]:
    """Return the variables of the lite form."""
    file = str(state_dir / EVENTS_FILE)
    return {"TOOLBUS_EVENTS_FILE": file, "TOOLBUS_SANDBOX_ON_DEMAND": "true"}


def check_options(*, separate: bool, clickhouse: str) -> None:
    """Raise `CommandError` for what the lite form does not have."""
    if separate:
        raise CommandError("--lite runs one process; leave out --separate, or --lite.")
    if clickhouse:
        raise CommandError(
            "--lite stores events in a file; unset TOOLBUS_CLICKHOUSE_URL, or leave out --lite."
        )


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run the launcher on the event loop of the services; return its exit code."""
    gc.disable()  # until all services run: they import most of their modules now
    code: int = import_module("uvloop").run(work)
    return code


def preload() -> None:
    """Import the services. A thread can do this while the engines start."""
    for name in SERVICES:
        import_module(f"toolbus_{name}.main")


async def reject_full_form(bus: Bus) -> None:
    """Raise `CommandError` if the events of this installation are in ClickHouse."""
    found = await (await bus.bucket(INSTALLATION)).get(EVENT_STORE)
    if found is not None and found.value:
        raise CommandError(
            "The events of this state directory are in ClickHouse, which --lite does not use; "
            "start without --lite, or choose another directory with --state-dir."
        )


def unused_sections(configuration: Configuration) -> list[str]:
    """Return the configured sections that only the full form uses."""
    return [name for name in ("exports", "readers") if getattr(configuration, name)]


@asynccontextmanager
async def serving(
    variables: Mapping[str, str], level: str, log: _FORWARD, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Run all services in this process until the context ends, and yield when all are ready.

    It also yields when `stop` is set before that. `log` receives the log lines. Raises
    `CommandError` if a service does not start.
    """
    os.environ.update(variables)
    _log_to(log, level)
    process = _process()
    try:
        with process.observed(SERVICES, os.environ):
            settings = Settings()
            async with process.serving(SERVICES, settings) as services:
                await ready(services, stop)
                yield
                await process.announce_end(services, settings.drain_delay)
    except (OtlpError, SecretError, SettingError, TlsFileError) as error:
        raise CommandError(str(error)) from error
    except UnavailableError as error:
        raise CommandError(error.reason) from error


async def ready(services: "Sequence[Service]", stop: asyncio.Event) -> None:
    """Wait until all services are ready, or `stop` is set. Raises `CommandError`."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not (stop.is_set() or all(each.is_ready for each in services)):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        reasons = [f"{each.name}: {each.status().reason}" for each in services if not each.is_ready]
        raise CommandError(f"Not ready after {READY_SECONDS:.0f} s: {'; '.join(reasons)}") from None


async def end(imports: asyncio.Task[None]) -> None:
    """End the import of the services, and every task that they left."""
    await asyncio.wait({imports})
    await _process().end_remaining_tasks()


def _process() -> ModuleType:
    """Import what runs services, which the launcher of the full form does not need."""
    return import_module("toolbus_common.service.process")


class _Handler(logging.Handler):
    """Passes log records to the log of the launcher, as one JSON object each."""

    def __init__(self, log: _FORWARD) -> None:
        super().__init__()
        self._log = log
        self.setFormatter(JsonFormatter("toolbus"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._log("services", self.format(record))


def _log_to(log: _FORWARD, level: str) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Handler(log)]
    root.setLevel(level.upper())
    for noisy in ("nats", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
