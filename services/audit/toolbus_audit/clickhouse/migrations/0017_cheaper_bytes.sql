-- The bytes of calls without parsing the event twice for each of the two columns. Publishers write
-- JSON without spaces. The two events contain no nested objects (tests/contract/test_flat_events.py),
-- and inside a string a quotation mark is escaped, so a search for the name of a field finds the field.
ALTER TABLE events MODIFY COLUMN IF EXISTS sent_bytes Int64 MATERIALIZED multiIf(
    event = 'call.allowed', simpleJSONExtractInt(detail, 'arguments_bytes'),
    event = 'call.completed' AND simpleJSONHas(detail, 'sent_bytes'),
        simpleJSONExtractInt(detail, 'sent_bytes'),
    event = 'call.completed', simpleJSONExtractInt(detail, 'result_bytes'),
    0
);
ALTER TABLE events MODIFY COLUMN IF EXISTS whole_bytes Int64 MATERIALIZED multiIf(
    event = 'call.allowed', simpleJSONExtractInt(detail, 'arguments_bytes'),
    event = 'call.completed', greatest(
        simpleJSONExtractInt(detail, 'whole_bytes'), simpleJSONExtractInt(detail, 'result_bytes')
    ),
    0
);
