"""Agent mode: runs of a model with tools, their limits, their state and their events."""
