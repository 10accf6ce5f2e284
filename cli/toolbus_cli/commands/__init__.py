"""The commands, by what people want to do."""
