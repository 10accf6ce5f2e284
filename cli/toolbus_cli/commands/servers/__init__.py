"""Commands for servers, calls, imports, pins and connections."""
