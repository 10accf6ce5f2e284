"""Python functions as tools, and the isolation status of server processes."""
