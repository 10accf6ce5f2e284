"""Explanations of calls: the decision about a call that is not made, with each of its steps."""
