"""The tools of a key for A2A clients: an agent card, and messages that call tools (1.0 and 0.3)."""
