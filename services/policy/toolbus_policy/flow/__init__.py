"""Information flow: what each run has read, and the decision about its calls."""
