"""The agent's model in the foreground: `python -m harness.agent_model.serve [--port PORT]`."""

import argparse
import os
import sys
from pathlib import Path

from harness.agent_model import model_program
from harness.agent_model.model import CONTEXT_TOKENS, MODEL, TOOL_TEMPLATE, model_file

DIRECTORY = Path("build/agent_model")


def main() -> None:
    """Assemble the model's file, and serve the model until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8081)
    port = parser.parse_args().port
    threads = max(1, (os.cpu_count() or 1) // 2)
    words = [port, model_file(DIRECTORY), MODEL, CONTEXT_TOKENS, threads, TOOL_TEMPLATE]
    sys.argv[1:] = [str(each) for each in words]
    model_program.main()


if __name__ == "__main__":
    main()
