"""Sandbox that runs each untrusted program in a separate process; it does not use the bus."""
