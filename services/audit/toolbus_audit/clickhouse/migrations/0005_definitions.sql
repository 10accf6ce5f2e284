-- The digest of the definition that a call used, or that was pinned, quarantined, approved or
-- rejected.
ALTER TABLE events ADD COLUMN IF NOT EXISTS definition_digest String AFTER result_type;
