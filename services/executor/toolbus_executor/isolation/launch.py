"""Launcher of a server's program: `launch.py COMMON EXECUTOR PLAN COMMAND…`.

`COMMON` and `EXECUTOR` are package directories. The script runs without site packages and imports
few modules, so that it starts fast.
"""

import sys

sys.path.extend(sys.argv[1:3])

from toolbus_executor.isolation.supervisor import supervise

if __name__ == "__main__":
    supervise(sys.argv[3], sys.argv[4:])
