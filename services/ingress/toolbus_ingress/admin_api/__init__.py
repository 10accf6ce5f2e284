"""The administration API: one path function per operation.

Policy checks and performs operations.
"""
