"""Configuration of model providers, model aliases and model prices."""
