-- +goose Up

-- What v_task shows of a task whose program has paused counts from when that began, since
-- there is began_ts; \d+ still had it that it is of the present attempt alone.
COMMENT ON COLUMN v_task.started_ts IS 'When its present attempt was claimed; where its program has paused, when that began.';
COMMENT ON COLUMN v_task.waited IS 'From its registration to started_ts.';
COMMENT ON COLUMN v_task.took IS 'From started_ts until it ended, or until now: pauses are in it. Empty while it waits.';

-- +goose Down
COMMENT ON COLUMN v_task.started_ts IS 'When its present attempt was claimed.';
COMMENT ON COLUMN v_task.waited IS 'From its registration to its present start.';
COMMENT ON COLUMN v_task.took IS 'Of its present attempt.';
