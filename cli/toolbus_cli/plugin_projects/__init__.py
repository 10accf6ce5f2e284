"""Working plugins in three languages, which `toolbus plugins new` writes under another name."""
