"""Who administers over HTTP: judged by role, and done."""
