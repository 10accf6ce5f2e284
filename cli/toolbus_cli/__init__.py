"""The `toolbus` command: it starts services as processes and talks to them over the bus."""
