"""Errors of backups."""

from toolbus_cli.errors import CommandError


class BackupError(CommandError):
    """A backup is damaged, or cannot be read, opened or restored; the message has the fix."""
