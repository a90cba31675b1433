-- How each key was signed by the one before it: with it the keys lead from the first one to that of today, also
-- when the entries that put them in force are pruned. Keys are not pruned any more.
ALTER TABLE audit_keys ADD COLUMN signature TEXT;
UPDATE audit_keys SET signature =
    (SELECT CASE WHEN json_valid(entry) THEN entry ->> '$.result.signature' END
     FROM audit WHERE audit.seq = audit_keys.seq);
