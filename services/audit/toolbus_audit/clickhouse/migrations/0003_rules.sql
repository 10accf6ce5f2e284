-- The attributes that rules evaluate, and the rules that matched.
ALTER TABLE events ADD COLUMN IF NOT EXISTS user LowCardinality(String) AFTER team;
ALTER TABLE events ADD COLUMN IF NOT EXISTS environment LowCardinality(String) AFTER user;
ALTER TABLE events ADD COLUMN IF NOT EXISTS family LowCardinality(String) AFTER method;
ALTER TABLE events ADD COLUMN IF NOT EXISTS rule LowCardinality(String) AFTER code;
ALTER TABLE events ADD COLUMN IF NOT EXISTS shadow Array(LowCardinality(String)) AFTER rule;
