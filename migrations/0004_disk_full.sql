-- Why bytes are missing, where the list of `gap` in the first version does not have it (`disk_full`):
-- such a gap is `drop_newest` there. Without a CHECK, for which every row would be read.
ALTER TABLE output_chunks ADD COLUMN gap_because TEXT;
