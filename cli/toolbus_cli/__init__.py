"""The `toolbus` command: it starts rooms as processes and talks to them over the bus."""
