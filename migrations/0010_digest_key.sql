-- What digests of secrets are made with: a hash of an environment or of a whole submission can be
-- guessed and compared by anybody who sees it, one that is made with a key cannot. One row; in no view.
CREATE TABLE digest_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;
