"""Servers that want OAuth: whose token a call carries, and what its caller is told without one."""
