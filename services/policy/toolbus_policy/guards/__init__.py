"""Guards of calls: which apply to a call, and the check of its arguments."""
