"""Starts a server's program: `launch.py COMMON EXECUTOR PLAN COMMAND…`, the first two directories.

It runs without site packages, so that little is imported.
"""

import sys

sys.path.extend(sys.argv[1:3])

from toolbus_executor.isolation.supervisor import supervise

if __name__ == "__main__":
    supervise(sys.argv[3], sys.argv[4:])
