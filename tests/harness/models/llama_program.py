"""HTTP server of llama.cpp in the foreground, from the package xllamacpp.

Usage: `python llama_program.py PORT MODEL_FILE MODEL_NAME`.
"""

import signal
import sys

import xllamacpp

CONTEXT_TOKENS = 2048
SLOTS = 2


def main() -> None:
    """Serve until the process ends."""
    port, file, name = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.n_ctx, parameters.n_parallel = CONTEXT_TOKENS * SLOTS, SLOTS
    parameters.cpuparams.n_threads = 2
    parameters.cpuparams.poll = 0  # waiting threads leave the processor to the gateway
    parameters.warmup = False
    parameters.verbosity = 1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
