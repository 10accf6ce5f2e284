"""Process that runs services, which call each other directly. It drains them on SIGTERM."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from importlib import import_module

import uvloop

from toolbus_common.errors import UnavailableError
from toolbus_common.observability import logging as logs
from toolbus_common.observability.otlp_env import OtlpError, exports_metrics, exports_traces
from toolbus_common.observability.tracing import recording
from toolbus_common.secrets.references import SecretError
from toolbus_common.service import health
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import SettingError, Settings
from toolbus_common.tls_files import TlsFileError

log = logging.getLogger(__name__)

# A service starts after the services that it calls, so that a ready service gets replies.
STARTING_ORDER = ("audit", "oauth", "executor", "policy", "codemode", "ingress")

END_SECONDS = 2.0  # time for cancelled tasks to end
LAST_EXPORT_MILLIS = 3000.0  # timeout of the export of metrics when the process ends
SWITCH_SECONDS = 0.0005  # a thread that encodes spans delays calls by at most this time


def build(name: str, process: ProcessContext) -> Service:
    """Return the service that `toolbus_<name>.main.build` creates."""
    service: Service = import_module(f"toolbus_{name}.main").build(process)
    return service


def run(names: Sequence[str], ops_listen: str = "") -> int:
    """Run services until SIGTERM or SIGINT, and return the exit code.

    A second signal ends the process immediately. `ops_listen` replaces `TOOLBUS_OPS_LISTEN`.
    """
    settings = Settings(ops_listen=ops_listen) if ops_listen else Settings()
    logs.configure("+".join(names), settings.log_level, settings.log_format)
    try:
        with observed(names, os.environ):
            uvloop.run(_run(sorted(names, key=STARTING_ORDER.index), settings))
    except (OtlpError, SecretError, SettingError, TlsFileError, _NoListenerError) as error:
        log.error("process.not_started", extra={"reason": str(error)})  # noqa: TRY400
        return 1
    except Exception:
        log.exception("process.failed")
        return 1
    return 0


@contextmanager
def observed(names: Sequence[str], environ: Mapping[str, str]) -> Iterator[None]:
    """Export spans and metrics until the context ends, as the environment configures it.

    Raises `OtlpError`.
    """
    with ExitStack() as stack:
        if exports_traces(environ):
            traces = import_module("toolbus_common.observability.tracing.exporter")
            exporter = traces.Exporter()
            stack.callback(exporter.close)
            stack.enter_context(recording.to(exporter, traces.configured_sampler()))
            stack.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(SWITCH_SECONDS)
            log.info("traces.exported")
        if exports_metrics(environ):
            metrics = import_module("toolbus_common.observability.otlp_metrics")
            reader = metrics.MetricExporter(names)
            stack.callback(reader.shutdown, LAST_EXPORT_MILLIS)
            log.info("metrics.exported")
        yield


async def _run(names: Sequence[str], settings: Settings) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    try:
        async with serving(names, settings) as services:
            await stop.wait()
            await announce_end(services, settings.drain_delay)
    finally:
        await end_remaining_tasks()


@asynccontextmanager
async def serving(names: Sequence[str], settings: Settings) -> AsyncIterator[Sequence[Service]]:
    """Run services in this process until the context ends; then drain them."""
    process = ProcessContext(alone=len(names) == 1)
    services = [build(name, process) for name in sorted(names, key=STARTING_ORDER.index)]
    health.report_readiness(services)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_operations(settings, services))
        for service in services:
            await stack.enter_async_context(service.running())
        _tune_garbage_collector()
        log.info("process.ready", extra={"services": ",".join(names), "pid": os.getpid()})
        yield services


async def announce_end(services: Sequence[Service], seconds: float) -> None:
    """End the readiness of all services, and continue to serve for `seconds`.

    Load balancers need this time to notice that the replica is not ready any more.
    """
    for service in services:
        service.announce_end()
    if seconds:
        log.info("process.leaving", extra={"seconds": seconds})
        await asyncio.sleep(seconds)


class _NoListenerError(Exception):
    """The operations listener cannot listen, so the process could not be monitored."""


@asynccontextmanager
async def _operations(settings: Settings, services: list[Service]) -> AsyncIterator[None]:
    address, names = settings.ops_address, settings.ops_names
    async with AsyncExitStack() as stack:
        try:
            listener = health.serving(address, lambda: services, names)
            bound = await stack.enter_async_context(listener)
        except UnavailableError as error:
            raise _NoListenerError(error.reason) from error
        log.info("ops.listening", extra={"address": str(bound)})
        yield


async def end_remaining_tasks() -> None:
    """Cancel all remaining tasks. Exit the process if a task does not end.

    If a cancellation coincides with a refused connection, the NATS client loses the cancellation.
    It would then reconnect forever, and the process would not end.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    _, stuck = await asyncio.wait(left, timeout=END_SECONDS) if left else (left, left)
    if stuck:
        names = [repr(task.get_coro()) for task in stuck]
        log.warning("process.tasks_stuck", extra={"tasks": names})
        logging.shutdown()
        os._exit(0)


def _tune_garbage_collector() -> None:
    """Exclude the objects that exist after the start from garbage collection.

    Every call waits during a collection, so a collection should examine few objects. Calls create
    few reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000, 20, 50)


def _stop_on_signals(stop: asyncio.Event) -> None:
    def once(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("process.forced_exit")
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, once, number)
