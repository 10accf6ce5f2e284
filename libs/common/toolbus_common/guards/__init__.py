"""Guards: look for secrets, personal data and injected instructions in the content of calls."""
