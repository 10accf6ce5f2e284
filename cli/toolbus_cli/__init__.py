"""The `toolbus` command: it starts services as processes and calls them over the bus."""
