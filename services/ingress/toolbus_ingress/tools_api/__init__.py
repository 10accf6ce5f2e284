"""Serve tools as functions over plain REST, for programs that run a model's tool calls."""
