"""List what a key may see: tools, prompts and resources of the configuration snapshot."""
