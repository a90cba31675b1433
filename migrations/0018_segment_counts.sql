-- How many bytes and line ends of each stream a segment has, as JSON, so that the last lines of a long
-- output are found without a look at all of it. NULL for segments of earlier versions.
ALTER TABLE segments ADD COLUMN counts TEXT;
