"""Third-party receivers and stores that answer over HTTP or syslog."""
