"""`python run_dying.py audit`: an audit that dies by SIGKILL in the middle of writing events.

Some inserts go well; during the next one the kill comes, a moment after it began: before the
engine has the rows, while it writes them, or after that and before they are acknowledged.
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

LIVES = 1  # insert that goes well
LONGEST = 0.06  # seconds from the beginning of an insert to the kill
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
