"""Plugins as Python packages: what they import (`api`), and the process that runs one of them."""
