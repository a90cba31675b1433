-- What the keys of shims are made from: who says hello to a shim proves that it knows the shim's key.
-- One row, made by the first server that has this table; in no view.
CREATE TABLE shim_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;
