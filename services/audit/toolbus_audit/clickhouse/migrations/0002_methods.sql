-- The MCP method of a call, and the kind of its result: complete, input_required or task.
ALTER TABLE events ADD COLUMN IF NOT EXISTS method LowCardinality(String) AFTER tool;
ALTER TABLE events ADD COLUMN IF NOT EXISTS result_type LowCardinality(String) AFTER method;
