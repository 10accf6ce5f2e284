"""The processes of one launcher: their start, readiness and ordered stop."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from itertools import groupby

from toolbus_cli.errors import CommandError
from toolbus_cli.launcher.child_process import Child, OnLine, Program
from toolbus_common.contracts import ServersQuery, ServersReply, ServerState, ServiceStatus
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

FUSED = (("ingress", "policy", "executor", "codemode"), ("audit",), ("oauth",))
SEPARATE = tuple((name,) for names in FUSED for name in names)
# Ingress stops first, so that accepted calls are still authorized, executed and recorded.
STAGES = {"ingress": 1, "codemode": 2, "policy": 3, "executor": 4, "oauth": 5, "audit": 6}
DEMO_STAGE = 8
DRAIN_SECONDS = 30.0
ENGINE_SECONDS = 10.0
READY_SECONDS = 120.0
ASK_SECONDS = 0.05
SERVERS_SECONDS = 2.0


class Fleet:
    """The child processes of the launcher, stopped by stage."""

    def __init__(self, note: Callable[[str, str], None], held: int) -> None:
        self._note = note
        self._held = held
        self.children: list[Child] = []

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of running children, by name."""
        return {c.program.name: c.pid for c in self.children if c.pid is not None}

    def start(self, program: Program) -> None:
        """Run a program until the group is stopped."""
        self.children.append(Child(program, self._note, self._held))

    async def stop(self) -> None:
        """Stop one stage after another: all services within 30 s, then the engines."""
        loop = asyncio.get_running_loop()
        services_end = loop.time() + DRAIN_SECONDS
        ordered = sorted(self.children, key=_stage)
        for stage, group in groupby(ordered, key=_stage):
            left = services_end - loop.time() if stage < DEMO_STAGE else ENGINE_SECONDS
            await asyncio.gather(*(child.stop(max(left, 0.5)) for child in group))

    def kill(self) -> None:
        """Kill all processes immediately."""
        for child in self.children:
            child.kill()

    async def wait_ready(self, bus: Bus, services: Iterable[str]) -> None:
        """Wait until each service is ready. Raises `CommandError` with the other services."""
        wanted = set(services)
        channel = RequestReply(OPERATOR, bus)
        statuses: list[ServiceStatus] = []
        began = asyncio.get_running_loop().time()
        while missing := wanted - self._ready(statuses):
            waited = asyncio.get_running_loop().time() - began
            if waited > READY_SECONDS:
                raise CommandError(self._why(sorted(missing), statuses))
            # Services on a busy machine start slowly and also reply slowly.
            statuses = await channel.request_all(max(ASK_SECONDS, waited / 10))

    def _ready(self, statuses: Iterable[ServiceStatus]) -> set[str]:
        ours = set(self.pids.values())
        return {status.service for status in statuses if status.ready and status.pid in ours}

    def _why(self, missing: list[str], statuses: Iterable[ServiceStatus]) -> str:
        reasons = {status.service: status.reason for status in statuses}
        reasons_given = [
            f"{service}: {reasons.get(service) or self._last_words(service)}" for service in missing
        ]
        return f"Not ready after {READY_SECONDS:.0f} s: {'; '.join(reasons_given)}"

    def _last_words(self, service: str) -> str:
        for child in self.children:
            if service in child.program.name.split("+") and child.last_words:
                return child.last_words[-1]
        return "no output"


def service_program(
    services: tuple[str, ...],
    environment: dict[str, str],
    on_line: OnLine,
    own: dict[str, dict[str, str]],
) -> Program:
    """Return the program that runs these services; `own` has variables of single services."""
    command = [sys.executable, "-P", "-m", "toolbus_cli.main", "run", *services]
    variables = dict(environment)
    for service in services:
        variables |= own.get(service, {})
    return Program(
        "+".join(services), command, on_line, min(map(STAGES.__getitem__, services)), variables
    )


def foreign(names: Iterable[str]) -> dict[str, str]:
    """Return empty values for the set variables that child processes must not inherit."""
    return {name: "" for name in names if name in os.environ}


async def servers_settled(bus: Bus) -> list[dict[str, object]]:
    """Return the upstream servers when all are connected or failed, or after two seconds."""
    channel = RequestReply(OPERATOR, bus)
    give_up = asyncio.get_running_loop().time() + SERVERS_SECONDS
    reply: ServersReply | None = None
    while reply is None or any(s["state"] == ServerState.CONNECTING for s in reply.servers):
        if asyncio.get_running_loop().time() > give_up:
            break
        try:
            reply = await channel.request(ServersQuery(), ServersReply, 1.0)
        except ToolbusError:
            break
        await asyncio.sleep(0.02)
    return list(reply.servers) if reply else []


def _stage(child: Child) -> int:
    return child.program.stage
