-- Where the ledger lay at the newest server start: device, inode and birth of its file. Another place
-- means a copy, which gets an instance of its own; unknown for those of earlier versions.
ALTER TABLE nodes ADD COLUMN place TEXT;

-- What the kernel bounds for a job's processes: NewJob's `limits`; NULL where nothing is.
ALTER TABLE jobs ADD COLUMN limits TEXT;
