"""Requests to plugins over the bus, within a time limit, and the breaker of each plugin."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Any

from msgspec import Struct
from nats.errors import Error as NatsError

from toolbus_common.circuit_breaker import Breaker, State
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall, HookReply, HookRequest
from toolbus_common.contracts.base import trusted
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.plugins import answers
from toolbus_common.plugins.answers import AnswerError
from toolbus_common.plugins.subjects import PREFIX, checker_of, is_plugin, subject_of

log = logging.getLogger(__name__)
CONNECTING_SECONDS = (0.02, 0.08)  # pauses before a program that has not connected is asked again
ENOUGH_SECONDS = 7.0  # a plugin that had this time is to blame, even if its time box is longer
# No call waits for these points, and plugins can start at the same time as servers. The pauses are
# not part of the time box.
STARTING_SECONDS = {"on_definition": (0.02, 0.08, 0.4, 1.0, 1.5)}
_request = trusted(HookRequest)


class PluginFaultError(Exception):
    """A plugin gave no valid answer in time. The message is the reason, without the content."""


class TooLargeError(PluginFaultError):
    """A request that was not sent, for which the plugin is not to blame."""


class _State(Struct):
    """The breaker of one plugin, its latest fault, and the declaration to which they belong."""

    plugin: Plugin
    breaker: Breaker
    fault: str = ""


class PluginRequests:
    """Requests of one process to plugins. `configured` returns the plugins that are declared now.

    A plugin that gave no valid answer several times in a row is ejected for a while: it is not
    asked, so that it slows down no call. `ejected` returns these plugins.
    """

    def __init__(self, bus: Bus, configured: Callable[[], Mapping[str, Plugin]]) -> None:
        self._bus = bus
        self._configured = configured
        self._states: dict[str, _State] = {}

    @property
    def declared(self) -> Mapping[str, Plugin]:
        """The plugins that are declared now."""
        return self._configured()

    @property
    def max_bytes(self) -> int:
        """The largest request that the bus takes."""
        return self._bus.max_bytes

    async def ask(
        self, name: str, plugin: Plugin, point: str, call: CheckedCall, content: Any
    ) -> HookReply:
        """Return a plugin's answer about a call, or about a parsed `content`.

        Raises `PluginFaultError`, or its `TooLargeError`.
        """
        state = self._state(name, plugin)
        breaker = state.breaker
        if breaker.state is not State.CLOSED and not breaker.admits(monotonic()):
            raise PluginFaultError(f"it is ejected, because {state.fault}")
        began = time()
        try:
            answer = await self._answer(name, plugin, point, call, content)
        except PluginFaultError as fault:
            enough = min(plugin.timeout, ENOUGH_SECONDS)
            if call.deadline - began < enough or isinstance(fault, TooLargeError):
                # The caller's deadline was too short, or its content too large; this must not eject
                # the plugin for others.
                breaker.abandoned(monotonic())
                raise
            state.fault = str(fault)
            if breaker.failed(monotonic()):
                log.warning("plugin.ejected", extra={"plugin": name, "reason": state.fault})
            raise
        except BaseException:
            breaker.abandoned(monotonic())
            raise
        if breaker.state is State.CLOSED and not breaker.failures:
            return answer
        if breaker.succeeded():
            log.info("plugin.asked_again", extra={"plugin": name})
        return answer

    def ejected(self) -> dict[str, str]:
        """Return the declared plugins that are not asked now, and why."""
        declared = self.declared
        return {
            name: state.fault
            for name, state in self._states.items()
            if state.breaker.state is not State.CLOSED and declared.get(name) is state.plugin
        }

    async def _answer(
        self, name: str, plugin: Plugin, point: str, call: CheckedCall, content: Any
    ) -> HookReply:
        try:
            data = await self._send(name, plugin, point, call, content)
            answer = answers.decoded(data)
            answers.check(answer, plugin, point)
        except LookupError:
            raise PluginFaultError("its program is not connected to the bus") from None
        except ToolbusError as error:
            raise PluginFaultError(error.reason.rstrip(".")) from error
        except NatsError as error:
            raise PluginFaultError(f"the bus did not take the request ({error})") from error
        except AnswerError as error:
            raise PluginFaultError(str(error)) from None
        return answer

    async def _send(
        self, name: str, plugin: Plugin, point: str, call: CheckedCall, content: Any
    ) -> bytes:
        """Return the reply to a request. A program that is just connecting is waited for briefly.

        Each attempt has a deadline of its own. Raises `LookupError` if no program is there,
        `PluginFaultError`, `ToolbusError`, or an error of the NATS client.
        """
        starting = STARTING_SECONDS.get(point)
        pauses = iter(starting or CONNECTING_SECONDS)
        while True:
            left = call.deadline - time()
            seconds = min(plugin.timeout, left)
            if seconds <= 0:
                raise PluginFaultError("no time was left to ask it")
            request = _request(
                point=point,
                plugin=name,
                call_id=call.call_id,
                customer=call.customer,
                key=call.key,
                server=call.server,
                tool=call.tool,
                deadline=time() + seconds,
                has_content=plugin.receives(point),
                content=content,
            )
            data = request.encode()
            if len(data) > self.max_bytes:
                raise TooLargeError("the content is larger than a message of the bus")
            try:
                return await self._bus.request(subject_of(point, name), data, seconds)
            except TimeoutError:
                raise PluginFaultError(f"it gave no answer within {seconds:.3g} s") from None
            except LookupError:
                pause = next(pauses, None)
                if pause is None:
                    raise
                await asyncio.sleep(min(pause, left if starting else seconds))

    def _state(self, name: str, plugin: Plugin) -> _State:
        """Return the state of a plugin; a new one if its declaration changed."""
        state = self._states.get(name)
        if state is None or state.plugin is not plugin:
            if state is not None and state.plugin == plugin:
                state.plugin = plugin
                return state
            state = self._states[name] = _State(plugin, Breaker())
        return state


def ejected(requests: PluginRequests) -> dict[str, str]:
    """Return the details of a service about ejected plugins; empty if there are none."""
    return details_of({name: f"ejected: {why}" for name, why in requests.ejected().items()})


def details_of(faults: Mapping[str, str]) -> dict[str, str]:
    """Return the details of a service about plugins."""
    return {checker_of(name): fault for name, fault in sorted(faults.items())}


def faults_in(details: Mapping[str, Any]) -> dict[str, str]:
    """Return the faults of plugins in the details of a service."""
    found = {name: str(fault) for name, fault in details.items() if is_plugin(name)}
    return {name.removeprefix(PREFIX): fault for name, fault in found.items()}
