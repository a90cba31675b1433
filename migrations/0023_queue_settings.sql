-- Why a queue is paused; NULL where nobody said it, and in a queue that is not paused.
ALTER TABLE queues ADD COLUMN pause_reason TEXT;
-- Takes no new jobs.
ALTER TABLE queues ADD COLUMN drain INTEGER NOT NULL DEFAULT 0 CHECK (drain IN (0, 1));
-- The most starts in any 60 seconds.
ALTER TABLE queues ADD COLUMN starts_per_minute INTEGER CHECK (starts_per_minute > 0);
