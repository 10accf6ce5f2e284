"""What this machine enforces, tried at the executor's start with a program that does nothing."""

import logging
import os

from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.settings import Settings

log = logging.getLogger(__name__)


async def probe(settings: Settings) -> None:
    """Say what processes of servers are held to here, and what not."""
    child = Child(lambda _line: None)
    held = Isolation(cgroup=settings.cgroup, hidden=(str(settings.state_dir.resolve()),))
    try:
        await child.start(["true"], {"PATH": os.environ.get("PATH", os.defpath)}, None, held)
        await child.ended
    except UpstreamDeadError as error:
        log.warning("isolation.not_tried", extra={"reason": error.reason})
    finally:
        await child.close()
    enforced = [what for what, is_so in child.held.items() if is_so]
    lacking = [what for what, is_so in child.held.items() if not is_so]
    level = logging.WARNING if lacking else logging.INFO
    log.log(level, "isolation.told", extra={"enforced": enforced, "lacking": lacking})
