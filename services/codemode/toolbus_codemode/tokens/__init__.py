"""Count tokens, and account for the context a list or a program costs."""
