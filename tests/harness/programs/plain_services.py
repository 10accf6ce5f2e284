"""`python run.py SERVICE…`: services in one process, as `toolbus run` starts them."""

import sys

from toolbus_common.service.process import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
