"""Agents that follow a script, and the company whose tools they use: for `make bench-codemode`."""
