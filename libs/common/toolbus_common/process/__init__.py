"""Restrictions of child processes: Landlock, resource limits, end with the parent."""
