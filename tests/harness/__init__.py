"""What tests start and hold: real engines, real processes, real clients."""
