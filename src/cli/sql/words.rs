//! SQL words for completion: keywords of queries, and functions that the server allows.

/// Keywords of a query.
const KEYWORDS: &str = "ALL AND AS ASC BETWEEN BY CASE CAST COLLATE CROSS CURRENT DESC DISTINCT \
    ELSE END ESCAPE EXCEPT EXISTS FILTER FIRST FOLLOWING FROM GLOB GROUP HAVING IN INNER INTERSECT \
    IS JOIN LAST LEFT LIKE LIMIT MATERIALIZED NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER \
    PARTITION PRECEDING RANGE RECURSIVE REGEXP ROW ROWS SELECT THEN UNBOUNDED UNION USING VALUES \
    WHEN WHERE WITH";

/// Functions that are useful in queries of the history.
const FUNCTIONS: &str = "abs ago avg ceil char coalesce concat concat_ws count cume_dist date \
    datetime dense_rank first_value floor format group_concat hex ifnull iif instr \
    json_array_length json_each json_extract json_group_array json_group_object json_object \
    json_tree json_type julianday lag last_value lead length lower ltrim max min nth_value ntile \
    nullif octet_length percent_rank printf quote rank replace round row_number rtrim sign \
    strftime string_agg substr sum time timediff total trim typeof unhex unicode unixepoch upper";

/// Keywords, in capitals.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    KEYWORDS.split_whitespace()
}

/// Functions, table-valued ones too.
pub fn functions() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.split_whitespace()
}
