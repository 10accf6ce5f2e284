"""Confine a process with Linux namespaces, control groups, mounts and system-call filters."""
