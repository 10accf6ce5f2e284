"""The sandbox: runs one untrusted program in one process of its own, and knows no bus."""
