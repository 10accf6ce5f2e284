"""Confinement of sandbox processes: Landlock, resource limits, seccomp."""
