"""Start a server's program: `launch.py COMMON EXECUTOR PLAN COMMAND…`.

The first two arguments are package directories. The script runs without site packages, so that few
modules are imported.
"""

import sys

sys.path.extend(sys.argv[1:3])

from toolbus_executor.isolation.supervisor import supervise

if __name__ == "__main__":
    supervise(sys.argv[3], sys.argv[4:])
