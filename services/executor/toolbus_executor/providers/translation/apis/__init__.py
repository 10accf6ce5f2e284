"""Types and constants of the APIs of models, as far as translations read them."""
