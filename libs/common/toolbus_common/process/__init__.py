"""Restrict and bind child processes: Landlock, resource limits, end with the parent."""
