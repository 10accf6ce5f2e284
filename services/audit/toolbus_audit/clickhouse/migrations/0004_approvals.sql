-- The approval that an event concerns, or that allowed a call.
ALTER TABLE events ADD COLUMN IF NOT EXISTS approval String AFTER result_type;
