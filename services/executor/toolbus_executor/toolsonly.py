"""What all upstreams share that offer tools and nothing else: no questions, no news, no end."""

import asyncio

from toolbus_common.errors import UpstreamRefusedError
from toolbus_executor.caller import METHOD_NOT_FOUND
from toolbus_executor.subscribing import refuse_unless_following, refuse_unless_subscribable
from toolbus_executor.upstream import Described


class ToolsOnly:
    """The part of an `Upstream` that is the same for all of them."""

    asks = False  # in the middle of a call nobody asks back

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def watch(self, uris: frozenset[str]) -> None:
        """There are no resources."""
        if uris:
            refuse_unless_subscribable(Described("", ""))

    async def follow(self, tasks: frozenset[str]) -> None:
        """There are no tasks."""
        if tasks:
            refuse_unless_following(Described("", ""))

    async def wait_lost(self) -> str:
        """Wait for the end."""
        return await asyncio.shield(self._lost)

    def lose(self, why: str) -> None:
        """The connection is of no more use."""
        if not self._lost.done():
            self._lost.set_result(why)


def no_such_method() -> UpstreamRefusedError:
    """What anybody is told who asks for something else."""
    return UpstreamRefusedError(
        "The server offers tools and nothing else.", upstream_code=METHOD_NOT_FOUND, sent=False
    )


def changed_since() -> UpstreamRefusedError:
    """What a call of a tool is told that does not stand any more for what was listed."""
    return UpstreamRefusedError(
        "The tool has changed; list the tools again.", upstream_code=-32602, sent=False
    )
