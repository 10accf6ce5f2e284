"""HTTP server of llama.cpp in the foreground, for one agent with long prompts.

Usage: `python model_program.py PORT MODEL_FILE MODEL_NAME CONTEXT_TOKENS THREADS [TEMPLATE_FILE]`.
"""

import signal
import sys
from pathlib import Path

import xllamacpp

CACHED_MIB = 4096  # evaluated prompts of other tool sets, at about 28 KiB a token


def main() -> None:
    """Serve until the process ends."""
    port, file, name, context, threads, *template = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.n_ctx, parameters.n_parallel = int(context), 1
    parameters.cache_ram_mib = CACHED_MIB
    for each in (parameters.cpuparams, parameters.cpuparams_batch):
        each.n_threads = int(threads)
        each.poll = 0  # waiting threads leave the processor to the gateway
    for each in template:
        parameters.chat_template = Path(each).read_text()
    parameters.warmup = False
    parameters.verbosity = 1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
