-- The approval a fact is about, or that let a call through.
ALTER TABLE facts ADD COLUMN IF NOT EXISTS approval String AFTER ending;
