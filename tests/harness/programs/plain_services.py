"""Services in one process, in the same way as `toolbus run`.

Usage: `python plain_services.py SERVICE…`.
"""

import sys

from toolbus_common.service.process import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
