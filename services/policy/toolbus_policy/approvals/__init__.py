"""Manage human approvals: their model, storage, and decisions."""
