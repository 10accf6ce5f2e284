"""Evidence of the signed logs: bundles for auditors, and their verifier."""
