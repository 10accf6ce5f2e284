-- Which definition a call was allowed by, and which one was pinned, held back or decided about.
ALTER TABLE events ADD COLUMN IF NOT EXISTS definition_digest String AFTER ending;
