-- The decision of the policy by which a job was taken, and who asked for it: {"rule", "digest", "requester"}.
-- NULL: there was no policy.
ALTER TABLE jobs ADD COLUMN policy TEXT CHECK (json_valid(policy));
-- Who has set a schedule, {"name", "uid"}: its runs are judged as that one. NULL: before there was a policy.
ALTER TABLE schedules ADD COLUMN requester TEXT CHECK (json_valid(requester));
-- The queue of the notice's job and who asked for it, {"name", "uid"}: a command is judged again before it runs, also
-- after its job is gone. NULL: before there was a policy, or the admin asked.
ALTER TABLE notices ADD COLUMN queue TEXT;
ALTER TABLE notices ADD COLUMN requester TEXT CHECK (json_valid(requester));
