"""Export of events: pages for the CLI, and files on a schedule."""
