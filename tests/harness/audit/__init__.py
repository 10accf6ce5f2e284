"""Events, sealed logs, witnesses and exports."""
