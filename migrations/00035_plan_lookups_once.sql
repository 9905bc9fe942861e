-- +goose Up

-- Since PostgreSQL 18 functions in SQL are planned as others are: where a trigger has its own
-- statements planned at each call, as it does when many tasks are inserted, what it asks for
-- each of them is, too; and a sweep had the first of these planned anew for each task, since
-- unnest is taken for ten rows where one plan is to do for all. That took ten times as long
-- as the rest. One plan does: both look up by key, in a table that may have grown since.
ALTER FUNCTION flower_unmet(varchar, integer[]) SET plan_cache_mode = force_generic_plan SET enable_seqscan = off;
ALTER FUNCTION flower_limited(varchar) SET plan_cache_mode = force_generic_plan SET enable_seqscan = off;

-- +goose Down

ALTER FUNCTION flower_unmet(varchar, integer[]) RESET plan_cache_mode RESET enable_seqscan;
ALTER FUNCTION flower_limited(varchar) RESET plan_cache_mode RESET enable_seqscan;
