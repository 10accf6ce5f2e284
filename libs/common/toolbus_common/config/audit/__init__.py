"""Configuration models of retention and exports."""
