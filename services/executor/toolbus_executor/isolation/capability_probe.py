"""Probe of the isolation that this machine supports. The executor runs it at its start."""

import logging
import os

from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.settings import Settings

log = logging.getLogger(__name__)


async def probe(settings: Settings) -> None:
    """Run a short process, and log which kinds of isolation are enforced and which are missing."""
    child = Child(lambda _line: None)
    held = Isolation(cgroup=settings.cgroup, hidden=(str(settings.state_dir.resolve()),))
    try:
        await child.start(["true"], {"PATH": os.environ.get("PATH", os.defpath)}, None, held)
        await child.ended
    except UpstreamDeadError as error:
        log.warning("isolation.probe_failed", extra={"reason": error.reason})
    finally:
        await child.close()
    enforced = [name for name, is_so in child.held.items() if is_so]
    lacking = [name for name, is_so in child.held.items() if not is_so]
    level = logging.WARNING if lacking else logging.INFO
    log.log(level, "isolation.probed", extra={"enforced": enforced, "lacking": lacking})
