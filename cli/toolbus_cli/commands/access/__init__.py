"""Commands for keys, administrators, people, approvals and rules."""
