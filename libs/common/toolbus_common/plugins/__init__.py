"""Requests to plugins at points of a call, their answers, and the breaker of each plugin."""
