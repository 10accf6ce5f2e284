"""Backups of an installation: parts with digests, sealed keys, and their restore."""
