-- What the executor does when it cannot know how an attempt ended: `fail`, or run the job again.
-- Jobs of the first version have what they were promised.
ALTER TABLE jobs ADD COLUMN on_lost TEXT NOT NULL DEFAULT 'fail'
    CHECK (on_lost IN ('fail', 'retry'));
