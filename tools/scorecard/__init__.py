"""The scorecard: what the project demands of itself, and the newest figure of each demand."""
