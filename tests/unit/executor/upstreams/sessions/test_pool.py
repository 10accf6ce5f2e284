"""The pool of a server's sessions opens none after it was shut down."""

from typing import Any

import pytest

from toolbus_common.config import Server
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.upstreams.sessions.owners import Owner
from toolbus_executor.upstreams.sessions.pool import Pool


class OpenSession:
    """A session's connection."""

    in_use = False

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        """Close it."""
        self.closed = True


async def test_a_pool_that_was_shut_down_closes_its_sessions_and_opens_no_other() -> None:
    pool: Pool[Any] = Pool("s", Server(command=("server",)))
    opened = OpenSession()
    owner = Owner("p1", "", "key ann")

    async def begin() -> OpenSession:
        return opened

    async with pool.lent("k", owner, begin, 5):
        pass
    await pool.shut_down()
    assert opened.closed
    with pytest.raises(UpstreamDeadError, match="s was stopped"):
        async with pool.lent("k", owner, begin, 5):
            pass
