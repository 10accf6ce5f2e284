"""Scripted agents, and the company whose tools they use, for `make bench-codemode`."""
