"""The administration API: one path function per operation; policy checks and performs it."""
