"""Command that the suite runs as its client; it sends the scenario to the leg's process.

The leg's process has everything imported, so that a scenario does not spend its time starting
programs.
"""

import http.client
import json
import os
import sys

PORT = "TOOLBUS_CONFORMANCE_ERRANDS"
PATIENCE = 90.0


def main() -> int:
    """Print the observations and return the exit code."""
    order = {
        "scenario": os.environ["MCP_CONFORMANCE_SCENARIO"],
        "revision": os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"],
        "context": json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"),
        "url": sys.argv[-1],
    }
    leg = http.client.HTTPConnection("127.0.0.1", int(os.environ[PORT]), timeout=PATIENCE)
    try:
        leg.request("POST", "/", json.dumps(order))
        body = json.loads(leg.getresponse().read())
    finally:
        leg.close()
    print(body["said"])
    print(body["failure"], file=sys.stderr)
    return 1 if body["failure"] else 0


if __name__ == "__main__":
    sys.exit(main())
