"""The command the suite runs as its client: it hands the scenario to the leg, which plays it.

A leg's process knows everything already: this one imports next to nothing, so that a scenario is
not mostly the start of programs.
"""

import http.client
import json
import os
import sys

PORT = "TOOLBUS_CONFORMANCE_ERRANDS"
PATIENCE = 90.0


def main() -> int:
    """Say what happened, and whether it went as it should."""
    errand = {
        "scenario": os.environ["MCP_CONFORMANCE_SCENARIO"],
        "revision": os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"],
        "context": json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"),
        "url": sys.argv[-1],
    }
    leg = http.client.HTTPConnection("127.0.0.1", int(os.environ[PORT]), timeout=PATIENCE)
    try:
        leg.request("POST", "/", json.dumps(errand))
        body = json.loads(leg.getresponse().read())
    finally:
        leg.close()
    print(body["said"])
    print(body["failure"], file=sys.stderr)
    return 1 if body["failure"] else 0


if __name__ == "__main__":
    sys.exit(main())
