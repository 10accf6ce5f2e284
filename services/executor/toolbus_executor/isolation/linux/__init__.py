"""Confinement of a process with namespaces, control groups, mounts and system-call filters."""
