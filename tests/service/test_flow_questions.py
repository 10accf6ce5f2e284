"""Evidence of information flow: the view of decisions, and the questions about them."""
