"""Sandbox: each untrusted program runs in a separate process. It does not use the bus."""
