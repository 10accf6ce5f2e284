"""Confine a sandbox process with Landlock, resource limits and seccomp."""
