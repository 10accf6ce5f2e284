"""Events that services publish and audit stores."""
