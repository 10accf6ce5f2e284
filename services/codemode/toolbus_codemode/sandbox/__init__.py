"""Sandbox: run each untrusted program in a separate process. It does not use the bus."""
