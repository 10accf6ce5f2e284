"""Third-party receivers and stores that respond over HTTP or syslog."""
