-- The approval an event is about, or that let a call through.
ALTER TABLE events ADD COLUMN IF NOT EXISTS approval String AFTER ending;
