"""Audit that kills itself with SIGKILL while it writes events.

Usage: `python dying_audit.py audit`. Some inserts succeed. During the next insert the process kills
itself at a random time: before the engine has the rows, during the write, or before the
acknowledgement.
"""

import os
import random
import signal
import sys
import time
from itertools import count
from threading import Timer
from typing import Any

from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_common.service.process import run

LIVES = 1  # number of inserts before the kill
LONGEST = 0.06  # maximum seconds from the start of an insert to the kill
_whole = ClickHouse._insert
_inserts = count()


def _dying(self: ClickHouse, table: str, *given: Any) -> None:
    if table == "events" and next(_inserts) == LIVES:
        Timer(random.uniform(0, LONGEST), os.kill, (os.getpid(), signal.SIGKILL)).start()
        _whole(self, table, *given)
        time.sleep(LONGEST)
    _whole(self, table, *given)


if __name__ == "__main__":
    setattr(ClickHouse, "_insert", _dying)  # noqa: B010 - mypy knows no other way
    sys.exit(run(sys.argv[1:]))
