"""Commands that start the gateway or single services, and prepare a cluster."""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from toolbus_cli.commands.operate.nats_cluster import (
    SINGLE,
    SYSTEM_USER,
    Durability,
    ServerTls,
    cluster_settings,
    optional_settings,
    parsed_nodes,
)
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_common import listen_address
from toolbus_common.config_store.literal_secrets import create_encryption_keys
from toolbus_common.crypto.key_file import load_key
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.permissions import create_seeds, server_configuration
from toolbus_common.nats.provision import Provisioned
from toolbus_common.nats.provision import provision as lay_down
from toolbus_common.service.names import SERVICES
from toolbus_common.service.shared_keys import forget_entry

# Secrets that the replicas of one service share, besides their seed.
KEYS = ("people.key", "policy.key", "client-state.key", "oauth.key", "oauth-vault.key")


def _address(text: str) -> str:
    try:
        listen_address.parsed(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error
    return text


def up(  # noqa: PLR0913
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            help="The configuration file; default: ./toolbus.yaml if it exists, otherwise a demo.",
        ),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 selects a free port.")
    ] = 8080,
    separate: Annotated[
        bool, typer.Option("--separate", help="Run each service in its own process.")
    ] = False,
    lite: Annotated[
        bool,
        typer.Option(
            "--lite", help="Run all services in this process, and store events in a file."
        ),
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="A file to write (mode 0600) when every service is ready.")
    ] = None,
    log_format: Annotated[
        str, typer.Option(envvar="TOOLBUS_LOG_FORMAT", help="The format of logs: text or json.")
    ] = "text",
    log_level: Annotated[
        str,
        typer.Option(
            envvar="TOOLBUS_LOG_LEVEL",
            help="The lowest level of logs: debug, info, warning or error.",
        ),
    ] = "info",
    ops_listen: Annotated[
        str,
        typer.Option(
            envvar="TOOLBUS_OPS_LISTEN",
            help="HOST:PORT of /readyz and /metrics; each additional process uses the next port.",
            callback=_address,
        ),
    ] = "127.0.0.1:0",
) -> None:
    """Start the whole gateway on this machine; Ctrl-C drains and stops it.

    The configuration file is watched: a valid change is applied; an invalid change is not applied,
    and its errors are printed. TOOLBUS_NATS_URL, TOOLBUS_REDIS_URL and TOOLBUS_CLICKHOUSE_URL
    select external servers instead of the embedded servers. --lite is for one developer: it needs
    less memory, and the next start without it moves all events to ClickHouse.
    """
    from toolbus_cli.launcher.up import Options  # noqa: PLC0415
    from toolbus_cli.launcher.up import up as launch  # noqa: PLC0415

    options = Options(
        config, state_dir, host, port, separate, ready_file, log_format, log_level,
        listen_address.parsed(ops_listen), lite,
    )  # fmt: skip
    raise typer.Exit(launch(options))


def run(
    services: Annotated[list[str], typer.Argument(help=f"One or more of {', '.join(SERVICES)}.")],
    ops_listen: Annotated[
        str,
        typer.Option(
            envvar="TOOLBUS_OPS_LISTEN",
            help="HOST:PORT of /healthz, /readyz and /metrics; port 0 selects a free port.",
            callback=_address,
        ),
    ] = "127.0.0.1:0",
) -> None:
    """Run services in one process, for a cluster; SIGTERM drains and stops them.

    Services are configured by their environment: TOOLBUS_NATS_URL, TOOLBUS_STATE_DIR (seeds and
    unsent events), TOOLBUS_REDIS_URL (policy), TOOLBUS_CLICKHOUSE_URL (audit), TOOLBUS_HTTP_HOST
    and TOOLBUS_HTTP_PORT (ingress). TOOLBUS_OPS_LISTEN sets the operations listener too;
    TOOLBUS_OPS_HOSTS lists the host names that this listener accepts.
    """
    raise typer.Exit(_run(services, ops_listen))


def _run(services: list[str], ops_listen: str) -> int:
    from toolbus_common.service.process import run as run_services  # noqa: PLC0415

    return run_services(services, ops_listen)


def provision(
    *,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=5,
            help="The replicas of each stream. Default: unchanged; 1 if new.",
        ),
    ] = None,
    events_gib: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The maximum size of the event stream in GiB. Default: unchanged; 32 if new.",
        ),
    ] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            help="Delete the recorded identity of a lost key or store, such as audit.store, so "
            "that the next replica can record its own; repeatable."
        ),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for NATS.")] = 15.0,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Create NATS streams, consumers and buckets; safe to repeat.

    Existing streams keep their replicas and sizes, unless an option sets them.
    """
    found = asyncio.run(_provision(state_dir, replicas, events_gib, forget or [], wait))
    if as_json:
        show_json([asdict(each) for each in found])
        return
    for line in _described(found):
        say(line)


async def _provision(
    state_dir: Path,
    replicas: int | None,
    events_gib: int | None,
    forgotten: list[str],
    wait: float,
) -> list[Provisioned]:
    async with joined(find(state_dir), wait) as bus:
        try:
            events_bytes = events_gib << 30 if events_gib is not None else None
            found = await lay_down(bus, replicas=replicas, events_bytes=events_bytes)
        except ToolbusError:
            raise
        except Exception as error:
            raise CommandError(
                f"NATS rejected the streams ({error}); check that JetStream is enabled and may "
                "store --events-gib, and that there are as many servers as --replicas."
            ) from error
        for each in forgotten:  # an older installation has its bucket only now
            await forget_entry(bus, each)
        return found


def _described(found: list[Provisioned]) -> Iterator[str]:
    """Yield a line for each created or changed stream, and a summary of the others."""
    for each in found:
        if each.created:
            copies = "1 replica" if each.replicas == 1 else f"{each.replicas} replicas"
            yield f"{each.stream}: created, {copies}"
        for name, (before, after) in each.changes.items():
            yield f"{each.stream}: {name} {before} -> {after}"
    if same := sum(not each.created and not each.changes for each in found):
        yield f"{same} of {len(found)} streams and buckets were left as they are."
    if single := [each.stream for each in found if each.is_single_copy]:
        yield (
            f"Warning: {len(single)} of them have only one copy, on one server of the cluster, and "
            "are lost with that server: run 'toolbus provision --replicas 3'."
        )


def nats_config(  # noqa: PLR0913 - one for each option
    directory: Annotated[Path, typer.Argument(help="The directory for nats.conf and nkeys/.")],
    *,
    listen: Annotated[str, typer.Option(help="The address NATS listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port NATS listens on.")] = 4222,
    store_dir: Annotated[
        str, typer.Option(help="The directory where NATS stores streams.")
    ] = "/data",
    node: Annotated[
        list[str],
        typer.Option(
            help="A server of a cluster as NAME=HOST, or NAME=HOST:PORT with the port for the "
            "other servers; repeat it for each server. Each gets a file of its own."
        ),
    ] = [],  # noqa: B006 - typer copies it
    tls_dir: Annotated[
        str,
        typer.Option(
            help="Require TLS, also between the servers of a cluster. This directory on the "
            "machine of the server NAME must contain ca.pem, NAME.pem and NAME.key; for a single "
            "server, ca.pem, nats.pem and nats.key."
        ),
    ] = "",
    client_certificates: Annotated[
        bool,
        typer.Option(
            "--client-certificates", help="Require a certificate from clients; needs --tls-dir."
        ),
    ] = False,
    monitor: Annotated[
        str, typer.Option(help="HOST:PORT of the unencrypted monitoring page of each server.")
    ] = "",
    system_account: Annotated[
        bool,
        typer.Option("--system-account", help="Add a user for server statistics and reports."),
    ] = False,
    durability: Annotated[
        Durability,
        typer.Option(
            help="strict: sync each message to disk before acknowledging it; default: sync within "
            "a second."
        ),
    ] = Durability.DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write a NATS configuration with a user, permissions and a seed file per service.

    With --node, the directory contains nats-NAME.conf for each server of a cluster; the servers
    share a generated password, which is in these files and in cluster.key only.

    Existing seeds and keys are not changed, so an upgrade only rewrites the configuration. Give
    each service only its own files: its seed; people.key (every service except ingress, and
    operators); policy.key (policy); client-state.key (ingress); oauth.key and oauth-vault.key
    (oauth); encryption/writers.json (policy and operators); the service's key in encryption/
    (executor, audit, oauth).
    """
    nodes = parsed_nodes(node)
    if client_certificates and not tls_dir:
        raise CommandError("--client-certificates needs --tls-dir with the servers' certificates.")
    tls = ServerTls(tls_dir, client_certificates) if tls_dir else None
    try:
        keys = create_seeds(directory / "nkeys", *((SYSTEM_USER,) if system_account else ()))
        for name in KEYS:
            load_key(directory / name)
        create_encryption_keys(directory / "encryption")
        strict = durability is Durability.STRICT
        configuration = server_configuration(
            keys, host=listen, port=port, store_dir=store_dir, strict=strict
        )

        def with_options(name: str) -> dict[str, Any]:
            added = optional_settings(tls, name, monitor, keys.get(SYSTEM_USER, ""))
            accounts = configuration["accounts"] | added.pop("accounts", {})
            return configuration | {"accounts": accounts} | added

        files = {directory / "nats.conf": with_options(SINGLE)}
        if nodes:
            password = load_key(directory / "cluster.key").hex()
            files = {
                directory / f"nats-{each.name}.conf": with_options(each.name)
                | cluster_settings(each, nodes, password, tls)
                for each in nodes
            }
        for path, content in files.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(content, file, indent=2)
    except OSError as error:
        raise CommandError(
            f"{directory} cannot be written ({error.strerror}); name another directory."
        ) from error
    if as_json:
        show_json({"configuration": [*map(str, files)], "users": keys})
    else:
        names = ", ".join(map(str, files))
        say(f"Wrote {names} and {len(keys)} seeds in {directory / 'nkeys'}.")
