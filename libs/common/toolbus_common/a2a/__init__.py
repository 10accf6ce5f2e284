"""The A2A protocol, for agents that are clients (ingress) and that are servers (executor)."""
