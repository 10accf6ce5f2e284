"""`toolbus up`: it starts engines and services, and applies the configuration file."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolbus_cli import config_client as desks
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import operator_bus
from toolbus_cli.launcher import config_source as source
from toolbus_cli.launcher import engines, lite, ports
from toolbus_cli.launcher import ops_listeners as ops
from toolbus_cli.launcher.banner import Welcome, banner, new_keys, shown_command, shown_path
from toolbus_cli.launcher.child_process import Program
from toolbus_cli.launcher.config_source import Source
from toolbus_cli.launcher.console_link import create_link
from toolbus_cli.launcher.demo_config import notes_command
from toolbus_cli.launcher.engines import Engine
from toolbus_cli.launcher.log_multiplexer import LogPrinter
from toolbus_cli.launcher.process_group import (
    DEMO_STAGE,
    FUSED,
    SEPARATE,
    Fleet,
    foreign,
    servers_settled,
    service_program,
)
from toolbus_cli.state_dir import State, read_json, write_private
from toolbus_common.config_store.loading.loader import Loaded
from toolbus_common.config_store.repository import Applied, ConfigRepository
from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.listen_address import HostPort
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.provision import provision
from toolbus_common.nats.topology import CONFIG, EVENTS_BYTES
from toolbus_common.plugins.subjects import bus_hooks
from toolbus_common.service.names import SERVICES

POLL_SECONDS = 0.5
BUS_SECONDS = 15.0
NATS_URL, REDIS_URL, CLICKHOUSE_URL = (
    "TOOLBUS_NATS_URL",
    "TOOLBUS_REDIS_URL",
    "TOOLBUS_CLICKHOUSE_URL",
)
PUBLIC_URL = "TOOLBUS_PUBLIC_URL"
SECRETS = (REDIS_URL, CLICKHOUSE_URL)  # each passed to one service only


@dataclass(frozen=True, slots=True)
class Options:
    """The command-line options of `toolbus up`."""

    config: Path | None
    state_dir: Path
    host: str
    port: int
    separate: bool
    ready_file: Path | None
    log_format: str = "text"
    log_level: str = "info"
    ops_listen: HostPort = ops.ANY
    lite: bool = False

    @property
    def processes(self) -> tuple[tuple[str, ...], ...]:
        """The services of each process."""
        if self.lite:
            return (SERVICES,)
        return SEPARATE if self.separate else FUSED

    @property
    def mode(self) -> str:
        """The form of the installation, as the run file names it."""
        return "lite" if self.lite else "separate" if self.separate else "fused"


@dataclass(slots=True)
class Launch:
    """The state of one run of `toolbus up`."""

    options: Options
    state: State
    log: LogPrinter
    source: Source
    loaded: Loaded
    nats: Engine
    valkey: Engine
    port: int
    ops: Mapping[str, HostPort]  # operations listeners by process name
    group: Fleet
    began: float
    hooks: engines.Hooks  # the subjects of plugins that the embedded NATS server knows
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    configured: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        """The URL that agents connect to."""
        host = self.options.host
        shown = ports.LOOPBACK if host in ("0.0.0.0", "::") else host  # noqa: S104
        scheme = "https" if os.environ.get("TOOLBUS_TLS_CERT") else "http"
        return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{self.port}/mcp"


def up(options: Options) -> int:
    """Run the gateway until a signal stops it; return the exit code."""
    began = time.monotonic()
    log = LogPrinter(options.log_format, options.log_level)
    state = State(options.state_dir.absolute())
    state.prepare()
    with state.locked(log.note) as held:
        work = _up(options, state, log, held, began)
        return lite.run(work) if options.lite else asyncio.run(work)


async def _up(options: Options, state: State, log: LogPrinter, held: int, began: float) -> int:
    launch = _prepared(options, state, log, held, began)
    _stop_on_signals(launch)
    imports = asyncio.create_task(asyncio.to_thread(lite.preload)) if options.lite else None
    try:
        async with _joined(launch) as bus, desks.opened(bus, state) as repository:
            if imports is not None:
                await lite.reject_full_form(bus)
            applied = await source.apply_first(repository, launch.source, launch.loaded)
            await _watch_configuration(launch, bus)
            await _give_plugins_users(launch, repository)
            if imports is not None:
                await imports
                await _serve_here(launch, repository, applied)
            else:
                _start_services(launch)
                if await _unless_stopped(launch, launch.group.wait_ready(bus, _services(SEPARATE))):
                    await _welcome(launch, repository, applied)
                    await _follow(launch, repository)
        log.note("draining")
    except _StoppedError:
        log.note("stopped before all services were ready")
    finally:
        await launch.group.stop()
        if imports is not None:
            await lite.end(imports)
        state.run_file.unlink(missing_ok=True)
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)
    return 0


class _StoppedError(Exception):
    """A signal arrived before the bus was connected."""


def _prepared(options: Options, state: State, log: LogPrinter, held: int, began: float) -> Launch:
    """Validate all options, files and ports before any process is started."""
    if options.lite:
        lite.check_options(separate=options.separate, clickhouse=os.environ.get(CLICKHOUSE_URL, ""))
    before = read_json(state.ports_file)
    names = ["+".join(services) for services in options.processes]
    chosen = source.choose(options.config, state, ports.free(before.get("notes")))
    chosen.host = options.host
    loaded = chosen.load()
    source.print_warnings(chosen.path, loaded, log.note)
    outside, hooks = os.environ.get, bus_hooks(loaded.configuration.plugins)
    launch = Launch(
        options=options,
        state=state,
        log=log,
        source=chosen,
        loaded=loaded,
        port=ports.requested(options.host, options.port, before.get("http")),
        nats=engines.nats(state, outside(NATS_URL, ""), before.get("nats"), log.engine, hooks),
        valkey=engines.valkey(state, outside(REDIS_URL, ""), before.get("valkey"), log.engine),
        ops=ops.listeners(options.ops_listen, names, before.get("ops")),
        group=Fleet(log.note, held),
        began=began,
        hooks=hooks,
    )
    taken: dict[str, Any] = {
        "http": launch.port,
        "nats": launch.nats.port,
        "valkey": launch.valkey.port,
    }
    taken["ops"] = {name: address.port for name, address in launch.ops.items()}
    write_private(state.ports_file, {**before, **taken, "notes": chosen.notes_port})
    return launch


def _stop_on_signals(launch: Launch) -> None:
    def on_signal(number: signal.Signals) -> None:
        if launch.stop.is_set():
            launch.group.kill()
            os._exit(128 + number)
        launch.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


@asynccontextmanager
async def _joined(launch: Launch) -> AsyncIterator[Bus]:
    """Start the engines, connect to the bus and provision it."""
    for engine in (launch.nats, launch.valkey):
        if engine.program is not None:
            launch.group.start(engine.program)
    if launch.source.is_demo:
        command = notes_command(launch.source.notes_port)
        launch.group.start(Program("notes", command, launch.log.service, DEMO_STAGE))
    bus = operator_bus(launch.state, launch.nats.url)
    try:
        if not await _unless_stopped(launch, bus.open(BUS_SECONDS)):
            raise _StoppedError
        free = shutil.disk_usage(launch.state.root).free
        await provision(bus, default_events_bytes=min(EVENTS_BYTES, max(1 << 30, free // 4)))
        yield bus
    except BusDownError as error:
        raise CommandError(f"{error.reason}.") from error
    finally:
        await bus.close()


async def _unless_stopped(launch: Launch, work: Coroutine[Any, Any, None]) -> bool:
    """Return whether the work completed before a signal arrived. Raises the errors of the work."""
    doing = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(launch.stop.wait())
    await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    await asyncio.wait({doing})
    return False


async def _serve_here(launch: Launch, repository: ConfigRepository, applied: Applied) -> None:
    """Run all services in this process until a signal arrives."""
    if unused := lite.unused_sections(launch.loaded.configuration):
        launch.log.note(f"--lite does not use these sections: {', '.join(unused)}", "warning")
    shared, own = _variables(launch)
    variables = shared | lite.environment(launch.state.root)
    for each in own.values():
        variables |= each
    (listen,) = launch.ops.values()
    variables |= {"TOOLBUS_OPS_LISTEN": str(listen)}
    stop = launch.stop
    async with lite.serving(variables, launch.options.log_level, launch.log.service, stop):
        if not stop.is_set():
            await _welcome(launch, repository, applied)
            await _follow(launch, repository)


def _variables(launch: Launch) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the variables of all services, and those of single services."""
    shared = {
        "TOOLBUS_STATE_DIR": str(launch.state.root),
        "TOOLBUS_NATS_URL": launch.nats.url,
        "TOOLBUS_LOG_FORMAT": "json",
        "TOOLBUS_LOG_LEVEL": launch.options.log_level,
        "TOOLBUS_FILE": str(launch.source.path.absolute()),  # upstream servers do not receive it
        **foreign(SECRETS),
    }
    public = os.environ.get(PUBLIC_URL) or launch.endpoint.removesuffix("/mcp")
    own = {
        "ingress": {
            PUBLIC_URL: public,
            "TOOLBUS_HTTP_HOST": launch.options.host,
            "TOOLBUS_HTTP_PORT": str(launch.port),
        },
        "policy": {REDIS_URL: launch.valkey.url, PUBLIC_URL: public},
        "oauth": {PUBLIC_URL: public},
        "audit": {CLICKHOUSE_URL: os.environ.get(CLICKHOUSE_URL, "")},
    }
    return shared, own


def _start_services(launch: Launch) -> None:
    shared, own = _variables(launch)
    for services in launch.options.processes:
        listen = {"TOOLBUS_OPS_LISTEN": str(launch.ops["+".join(services)])}
        launch.group.start(service_program(services, shared | listen, launch.log.service, own))


def _services(processes: Iterable[tuple[str, ...]]) -> list[str]:
    return [service for services in processes for service in services]


async def _welcome(launch: Launch, repository: ConfigRepository, applied: Applied) -> None:
    servers = await servers_settled(repository.bus)
    name, secret = await _first_key(launch, repository, applied)
    console = await create_link(repository, launch.endpoint.removesuffix("/mcp"))
    _write_run_file(launch)
    if launch.options.ready_file is not None:
        ready = {"endpoint": launch.endpoint, "key": secret, "nats_url": launch.nats.url}
        ready |= {"redis_url": launch.valkey.url, "state_dir": str(launch.state.root)}
        more = {"ops": ops.urls(launch.ops), "pids": launch.group.pids, "console": console}
        write_private(launch.options.ready_file, {**ready, **more})
    welcome = Welcome(
        endpoint=launch.endpoint,
        state_dir=shown_path(launch.options.state_dir),
        ops=ops.urls(launch.ops),
        servers=servers,
        console=console,
        demo=launch.source.is_demo,
        key=name,
        key_declared=name in launch.loaded.secrets,
        secrets=applied.secrets,
        seconds=time.monotonic() - launch.began,
        command=shown_command(),
        has_models=bool(launch.loaded.configuration.providers),
    )
    sys.stdout.write(banner(welcome))
    sys.stdout.flush()


async def _first_key(
    launch: Launch, repository: ConfigRepository, applied: Applied
) -> tuple[str, str]:
    """Return the key for the banner, and its secret if it is new or configured."""
    known = {**launch.loaded.secrets, **applied.secrets}
    names = [*(await repository.declared()).configuration.keys, *await repository.own_keys()]
    name = next((name for name in names if name in known), names[0] if names else "")
    return name, known.get(name, "")


def _write_run_file(launch: Launch) -> None:
    run = {
        "pid": os.getpid(),
        "endpoint": launch.endpoint,
        "http_host": launch.options.host,
        "nats_url": launch.nats.url,
        "redis_url": launch.valkey.url,
        "ops": ops.urls(launch.ops),
        "config": str(launch.source.path.absolute()),
        "mode": launch.options.mode,
        "started": time.time(),
        "pids": launch.group.pids,
    }
    write_private(launch.state.run_file, run)


async def _follow(launch: Launch, repository: ConfigRepository) -> None:
    """Apply changes of the file and store new process ids, until a signal arrives."""
    pids = launch.group.pids
    while not launch.stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(launch.stop.wait(), POLL_SECONDS)
        if launch.group.pids != pids:
            pids = launch.group.pids
            _write_run_file(launch)
        if launch.source.changed():
            await _reload(launch, repository)
        if launch.configured.is_set():
            await _give_plugins_users(launch, repository)


async def _give_plugins_users(launch: Launch, repository: ConfigRepository) -> None:
    """Create a user of the embedded NATS server for each plugin that is declared now."""
    pid = launch.group.pids.get("nats")
    if launch.nats.program is None or pid is None:
        return
    try:
        hooks = bus_hooks((await repository.declared()).configuration.plugins)
    except ToolbusError:  # no connection: the next round retries
        return
    launch.configured.clear()
    if hooks != launch.hooks:
        engines.write_nats_configuration(launch.state, launch.nats.port, hooks)
        os.kill(pid, signal.SIGHUP)
        launch.hooks = hooks


async def _watch_configuration(launch: Launch, bus: Bus) -> None:
    """Note each change of the stored configuration, also by commands."""
    await bus.subscribe(watched(CONFIG), lambda *_: launch.configured.set())
    bus.on_lost.append(launch.configured.set)  # a change could be missed


async def _reload(launch: Launch, repository: ConfigRepository) -> None:
    done = await source.reload(repository, launch.source, launch.log.note)
    if done is None:
        return
    launch.loaded, applied = done
    if applied.secrets:
        sys.stdout.write(new_keys(applied.secrets) + "\n")
        sys.stdout.flush()
