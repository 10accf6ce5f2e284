-- Which MCP method a call used, and how it ended: complete, input_required or task.
ALTER TABLE events ADD COLUMN IF NOT EXISTS method LowCardinality(String) AFTER tool;
ALTER TABLE events ADD COLUMN IF NOT EXISTS ending LowCardinality(String) AFTER method;
