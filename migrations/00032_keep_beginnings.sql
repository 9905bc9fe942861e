-- +goose Up

-- When things began. A task whose program has paused had no start while it waited, and in
-- the end only that of its last look: a Wait of two hours, or a Flow, took nothing. And a
-- flow whose first task was tried again had started with the last attempt. Nor has a flow
-- ended that waits for approval.

-- Nothing is in it that could be wrong, and to look would keep everybody waiting: the next
-- migration does, when nobody waits for it.
ALTER TABLE kr_task_stat ADD COLUMN began_ts timestamptz, ADD CONSTRAINT kr_task_began_is_finite CHECK (isfinite(began_ts)) NOT VALID;
COMMENT ON COLUMN kr_task_stat.began_ts IS 'Kept by Flower: when the program started that has paused since. It is in started_ts when the task has ended.';
COMMENT ON COLUMN kr_task_stat.started_ts IS 'When the present attempt was claimed; empty while the task waits. Of a task that has ended: when its program started, before all pauses.';

CREATE OR REPLACE VIEW v_flow AS
SELECT f.task_flow_id, f.task_id,
       CASE WHEN c.running > 0 OR c.can_go > 0 AND c.begun THEN 'running'
            WHEN c.failed > 0 THEN 'failed'
            WHEN c.held > 0 THEN 'held'
            WHEN c.cancelled > 0 THEN 'cancelled'
            WHEN c.waiting > 0 THEN 'queued'
            ELSE 'finished' END AS status,
       (c.finished + c.ignored) || '/' || c.tasks AS progress,
       x.task_exec_seq AS failed_task,
       left(split_part(x.error, E'\n', 1), 120) AS error,
       c.waiting, c.running, c.suspended, c.finished, c.ignored,
       f.registered_by, f.registered_ts, least(c.started_ts, a.started_ts) AS started_ts,
       CASE WHEN c.running = 0 AND c.can_go = 0 AND (c.asks = 0 OR c.failed > 0) THEN c.ended_ts END AS ended_ts,
       CASE WHEN c.running = 0 AND c.can_go = 0 AND (c.asks = 0 OR c.failed > 0) THEN c.ended_ts ELSE statement_timestamp() END - least(c.started_ts, a.started_ts) AS took,
       c.asks
FROM   kr_flow f
CROSS JOIN LATERAL (
    SELECT count(*) AS tasks,
           count(*) FILTER (WHERE exec_status = 0) AS waiting,
           count(*) FILTER (WHERE exec_status = 0 AND unmet = 0) AS can_go,
           count(*) FILTER (WHERE exec_status = 1) AS running,
           count(*) FILTER (WHERE exec_status = 2) AS suspended,
           count(*) FILTER (WHERE exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')) AS failed,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'held') AS held,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'held' AND pause ? 'ask') AS asks,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE exec_status = 3) AS finished,
           count(*) FILTER (WHERE exec_status = 9) AS ignored,
           bool_or(exec_status IN (3, 9) OR attempt > attempt_base) AS begun,
           min(least(began_ts, started_ts)) AS started_ts,
           max(greatest(finished_ts, suspended_ts)) AS ended_ts
    FROM   kr_task_stat t WHERE t.task_flow_id = f.task_flow_id
) c
LEFT JOIN LATERAL (  -- attempts before those that the tasks' rows show
    SELECT min(started_ts) AS started_ts FROM kr_task_attempt a WHERE a.task_flow_id = f.task_flow_id
) a ON true
LEFT JOIN LATERAL (
    SELECT task_exec_seq, coalesce(t.error, t.reason) AS error
    FROM   kr_task_stat t
    WHERE  c.failed > 0 AND t.task_flow_id = f.task_flow_id AND exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')
    ORDER  BY suspended_ts, task_exec_seq
    LIMIT  1
) x ON true
WHERE c.tasks > 0;
COMMENT ON COLUMN v_flow.started_ts IS 'When a task of it was started for the first time.';
COMMENT ON COLUMN v_flow.ended_ts IS 'When its last task ended; empty while something of it runs or could run, or all that is left waits for approval.';

CREATE OR REPLACE VIEW v_task AS
SELECT t.task_flow_id, t.task_exec_seq, flower_title(t.description, t.program) AS title,
       CASE WHEN t.exec_status = 2 THEN coalesce(t.reason, 'suspended') ELSE flower_status_word(t.exec_status) END AS status,
       CASE WHEN t.exec_status = 2 AND t.reason = 'held' AND t.pause ? 'ask' THEN 'waits for approval' ELSE w.why END AS why,
       flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs) AS depends_on,
       t.program, t.attempt, t.max_attempts, k.host || ':' || k.pid AS watcher,
       coalesce(t.began_ts, t.started_ts) - t.registered_ts AS waited,
       CASE WHEN t.exec_status <> 0 THEN coalesce(t.finished_ts, t.suspended_ts, CASE WHEN t.exec_status = 1 THEN clock_timestamp() END)
            - coalesce(t.began_ts, t.started_ts) END AS took,
       t.task_priority, t.error, t.task_id, t.task_seq, coalesce(t.began_ts, t.started_ts) AS started_ts, coalesce(t.finished_ts, t.suspended_ts) AS ended_ts
FROM   kr_task_stat t
LEFT   JOIN v_why_waiting w ON w.task_flow_id = t.task_flow_id AND w.task_exec_seq = t.task_exec_seq
LEFT   JOIN kr_watcher k ON k.watcher_id = t.watcher_id;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_unpause(before kr_task_stat, after kr_task_stat) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held     boolean := before.exec_status = 2 AND before.reason IS NOT DISTINCT FROM 'held';
    resumed  boolean := held AND after.exec_status = 0;
    approval jsonb;
BEGIN
    IF held AND before.pause ? 'ask' THEN
        approval := jsonb_strip_nulls(jsonb_build_object('approved_by', flower_actor(), 'at', clock_timestamp(),
                                                         'note', nullif(current_setting('flower.reason', true), '')));
    END IF;
    UPDATE kr_task_stat t
    SET pause = CASE WHEN after.exec_status = 2 OR resumed AND approval IS NULL THEN t.pause
                     WHEN resumed THEN t.pause - 'ask' || jsonb_build_object('approval', approval) END,
        began_ts = CASE WHEN after.exec_status = 2 OR resumed THEN t.began_ts END,
        started_ts = CASE WHEN after.exec_status = 3 THEN coalesce(t.began_ts, t.started_ts) ELSE t.started_ts END,
        attempt_base = CASE WHEN resumed THEN before.attempt_base ELSE t.attempt_base END,
        output = CASE WHEN after.exec_status = 3 THEN coalesce(t.output, approval) ELSE t.output END
    WHERE task_flow_id = after.task_flow_id AND task_exec_seq = after.task_exec_seq;
    IF before.began_ts IS NOT NULL AND after.exec_status = 0 AND NOT resumed THEN  -- that was the attempt that began then
        UPDATE kr_task_attempt SET started_ts = before.began_ts
        WHERE task_flow_id = before.task_flow_id AND task_exec_seq = before.task_exec_seq AND attempt = before.attempt;
    END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_unpause(before kr_task_stat, after kr_task_stat) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held     boolean := before.exec_status = 2 AND before.reason IS NOT DISTINCT FROM 'held';
    resumed  boolean := held AND after.exec_status = 0;
    approval jsonb;
BEGIN
    IF held AND before.pause ? 'ask' THEN
        approval := jsonb_strip_nulls(jsonb_build_object('approved_by', flower_actor(), 'at', clock_timestamp(),
                                                         'note', nullif(current_setting('flower.reason', true), '')));
    END IF;
    UPDATE kr_task_stat t
    SET pause = CASE WHEN after.exec_status = 2 OR resumed AND approval IS NULL THEN t.pause
                     WHEN resumed THEN t.pause - 'ask' || jsonb_build_object('approval', approval) END,
        attempt_base = CASE WHEN resumed THEN before.attempt_base ELSE t.attempt_base END,
        output = CASE WHEN after.exec_status = 3 THEN coalesce(t.output, approval) ELSE t.output END
    WHERE task_flow_id = after.task_flow_id AND task_exec_seq = after.task_exec_seq;
END $$;
-- +goose StatementEnd

CREATE OR REPLACE VIEW v_task AS
SELECT t.task_flow_id, t.task_exec_seq, flower_title(t.description, t.program) AS title,
       CASE WHEN t.exec_status = 2 THEN coalesce(t.reason, 'suspended') ELSE flower_status_word(t.exec_status) END AS status,
       CASE WHEN t.exec_status = 2 AND t.reason = 'held' AND t.pause ? 'ask' THEN 'waits for approval' ELSE w.why END AS why,
       flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs) AS depends_on,
       t.program, t.attempt, t.max_attempts, k.host || ':' || k.pid AS watcher,
       t.started_ts - t.registered_ts AS waited,
       CASE WHEN t.exec_status <> 0 THEN coalesce(t.finished_ts, t.suspended_ts, CASE WHEN t.exec_status = 1 THEN clock_timestamp() END) - t.started_ts END AS took,
       t.task_priority, t.error, t.task_id, t.task_seq, t.started_ts, coalesce(t.finished_ts, t.suspended_ts) AS ended_ts
FROM   kr_task_stat t
LEFT   JOIN v_why_waiting w ON w.task_flow_id = t.task_flow_id AND w.task_exec_seq = t.task_exec_seq
LEFT   JOIN kr_watcher k ON k.watcher_id = t.watcher_id;

CREATE OR REPLACE VIEW v_flow AS
SELECT f.task_flow_id, f.task_id,
       CASE WHEN c.running > 0 OR c.can_go > 0 AND c.begun THEN 'running'
            WHEN c.failed > 0 THEN 'failed'
            WHEN c.held > 0 THEN 'held'
            WHEN c.cancelled > 0 THEN 'cancelled'
            WHEN c.waiting > 0 THEN 'queued'
            ELSE 'finished' END AS status,
       (c.finished + c.ignored) || '/' || c.tasks AS progress,
       x.task_exec_seq AS failed_task,
       left(split_part(x.error, E'\n', 1), 120) AS error,
       c.waiting, c.running, c.suspended, c.finished, c.ignored,
       f.registered_by, f.registered_ts, c.started_ts,
       CASE WHEN c.running = 0 AND c.can_go = 0 THEN c.ended_ts END AS ended_ts,
       CASE WHEN c.running = 0 AND c.can_go = 0 THEN c.ended_ts ELSE statement_timestamp() END - c.started_ts AS took,
       c.asks
FROM   kr_flow f
CROSS JOIN LATERAL (
    SELECT count(*) AS tasks,
           count(*) FILTER (WHERE exec_status = 0) AS waiting,
           count(*) FILTER (WHERE exec_status = 0 AND unmet = 0) AS can_go,
           count(*) FILTER (WHERE exec_status = 1) AS running,
           count(*) FILTER (WHERE exec_status = 2) AS suspended,
           count(*) FILTER (WHERE exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')) AS failed,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'held') AS held,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'held' AND pause ? 'ask') AS asks,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE exec_status = 3) AS finished,
           count(*) FILTER (WHERE exec_status = 9) AS ignored,
           bool_or(exec_status IN (3, 9) OR attempt > attempt_base) AS begun,
           min(started_ts) AS started_ts,
           max(greatest(finished_ts, suspended_ts)) AS ended_ts
    FROM   kr_task_stat t WHERE t.task_flow_id = f.task_flow_id
) c
LEFT JOIN LATERAL (
    SELECT task_exec_seq, coalesce(t.error, t.reason) AS error
    FROM   kr_task_stat t
    WHERE  c.failed > 0 AND t.task_flow_id = f.task_flow_id AND exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')
    ORDER  BY suspended_ts, task_exec_seq
    LIMIT  1
) x ON true
WHERE c.tasks > 0;
COMMENT ON COLUMN v_flow.started_ts IS 'When its first task started.';
COMMENT ON COLUMN v_flow.ended_ts IS 'When its last task ended; empty while something of it runs or could run.';
COMMENT ON COLUMN kr_task_stat.started_ts IS 'When the present attempt was claimed; empty while the task waits.';
ALTER TABLE kr_task_stat DROP COLUMN began_ts;
