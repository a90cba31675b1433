-- Why nobody can say what is left of a lost attempt; NULL where somebody could look.
ALTER TABLE jobs ADD COLUMN survivors_unknown TEXT;
