"""Restrictions of child processes: Landlock, resource limits, and end with the parent."""
