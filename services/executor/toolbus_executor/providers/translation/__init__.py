"""Translation between the APIs of models."""
