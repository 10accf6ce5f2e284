"""Evidence of the signed logs: bundles for auditors, their verifier, and proofs of inclusion."""
