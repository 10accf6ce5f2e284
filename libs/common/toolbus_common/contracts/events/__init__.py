"""Define the events that services publish and audit stores."""
