"""Command `toolbus` of a shell, executed by the process that listens at a socket.

Usage: `python command_client.py SOCKET WORD…`. Only the standard library is imported.
"""

import json
import os
import socket
import sys

request = [os.getpid(), sys.argv[2:], str(os.getcwd()), dict(os.environ)]  # noqa: PTH109
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    server.sendall(json.dumps(request).encode() + b"\n")
    code = server.recv(1)
sys.exit(code[0] if code else 1)
