-- The decision of the policy by which a job was taken, and who asked for it: {"rule", "digest", "requester"}.
-- NULL: there was no policy.
ALTER TABLE jobs ADD COLUMN policy TEXT CHECK (json_valid(policy));
-- Who has set a schedule, {"name", "uid"}: its runs are judged as that one. NULL: before there was a policy.
ALTER TABLE schedules ADD COLUMN requester TEXT CHECK (json_valid(requester));
