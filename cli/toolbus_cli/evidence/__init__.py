"""Evidence for auditors: exported events with their signed checkpoints, verified offline."""
