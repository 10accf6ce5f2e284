"""The pages of what runs: models and providers, guards, agent runs, and the settings."""
