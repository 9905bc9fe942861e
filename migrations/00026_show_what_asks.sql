-- +goose Up

-- A task that asks a person is held, and so is its flow: for whoever looks, that it asks is
-- what counts.
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
COMMENT ON COLUMN v_flow.asks IS 'How many of its tasks ask a person: they wait for flower_approve, and error in v_task is what each asks.';

-- The same as before, and that it asks.
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
COMMENT ON COLUMN v_task.why IS 'Why it waits; of one that asks a person, that it does.';

CREATE OR REPLACE VIEW v_why_waiting AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title,
       CASE WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN 'blocked'
            WHEN t.unmet > 0 THEN 'dependency'
            WHEN t.run_after IS NOT NULL AND t.pause IS NOT NULL AND t.error IS NULL
                 THEN CASE WHEN t.pause ? 'flow' THEN 'flow' WHEN t.pause ? 'callback' THEN 'callback' ELSE 'time' END
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0 THEN 'retry'
            WHEN t.run_after IS NOT NULL THEN 'time'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN 'no_watcher'
            WHEN t.gate = 2 THEN 'limit'
            ELSE 'queued' END AS wait_reason,
       CASE WHEN t.unmet > 0 AND b.missing IS NOT NULL THEN format('task %s, which it depends on, does not exist', b.missing)
            WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN format('blocked by task %s (%s)', b.stopped, b.stopped_why)
            WHEN t.unmet > 0 THEN format('waits for task %s', array_to_string(b.waits_for, ', '))
            -- no error: since the pause no attempt has failed
            WHEN t.run_after IS NOT NULL AND t.pause IS NOT NULL AND t.error IS NULL
                 THEN coalesce(t.pause->>'why', format('waits until %s', to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ')))
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0
                 THEN format('attempt %s failed, the next one starts after %s', t.attempt, to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ'))
            WHEN t.run_after IS NOT NULL THEN format('not before %s', to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ'))
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining) THEN 'no watcher is running'
            WHEN t.program IS NULL THEN 'it has no program'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN format('no watcher has the program %L', t.program)
            WHEN t.gate = 2 THEN (
                SELECT format('workflow %s may have %s at once', t.task_id COLLATE "default", concat_ws(' and ',
                              w.max_running_flows || CASE w.max_running_flows WHEN 1 THEN ' running flow' ELSE ' running flows' END,
                              w.max_running_tasks || CASE w.max_running_tasks WHEN 1 THEN ' running task' ELSE ' running tasks' END))
                FROM ms_workflow w WHERE w.task_id = t.task_id)
            ELSE 'can go: waits for a free worker' END AS why,
       b.waits_for, t.registered_ts AS since, t.run_after
FROM   kr_task_stat t
LEFT JOIN LATERAL (
    SELECT array_agg(d ORDER BY d) AS waits_for,
           min(d) FILTER (WHERE p.exec_status IS NULL) AS missing,
           min(d) FILTER (WHERE p.exec_status = 2) AS stopped,
           (array_agg(CASE WHEN p.reason = 'held' AND p.pause ? 'ask' THEN 'waits for approval' ELSE coalesce(p.reason, 'suspended') END ORDER BY d)
               FILTER (WHERE p.exec_status = 2))[1] AS stopped_why
    FROM   (SELECT DISTINCT unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))) x(d)
    -- by the key of each: the planner would read the whole flow for each of its tasks
    LEFT   JOIN LATERAL (SELECT p.exec_status, p.reason, p.pause FROM kr_task_stat p
                         WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d OFFSET 0) p ON true
    WHERE  p.exec_status IS NULL OR p.exec_status NOT IN (3, 9)
) b ON t.unmet > 0
WHERE  t.exec_status = 0;

-- +goose Down
CREATE OR REPLACE VIEW v_why_waiting AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title,
       CASE WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN 'blocked'
            WHEN t.unmet > 0 THEN 'dependency'
            WHEN t.run_after IS NOT NULL AND t.pause IS NOT NULL AND t.error IS NULL
                 THEN CASE WHEN t.pause ? 'flow' THEN 'flow' WHEN t.pause ? 'callback' THEN 'callback' ELSE 'time' END
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0 THEN 'retry'
            WHEN t.run_after IS NOT NULL THEN 'time'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN 'no_watcher'
            WHEN t.gate = 2 THEN 'limit'
            ELSE 'queued' END AS wait_reason,
       CASE WHEN t.unmet > 0 AND b.missing IS NOT NULL THEN format('task %s, which it depends on, does not exist', b.missing)
            WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN format('blocked by task %s (%s)', b.stopped, b.stopped_why)
            WHEN t.unmet > 0 THEN format('waits for task %s', array_to_string(b.waits_for, ', '))
            -- no error: since the pause no attempt has failed
            WHEN t.run_after IS NOT NULL AND t.pause IS NOT NULL AND t.error IS NULL
                 THEN coalesce(t.pause->>'why', format('waits until %s', to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ')))
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0
                 THEN format('attempt %s failed, the next one starts after %s', t.attempt, to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ'))
            WHEN t.run_after IS NOT NULL THEN format('not before %s', to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ'))
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining) THEN 'no watcher is running'
            WHEN t.program IS NULL THEN 'it has no program'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN format('no watcher has the program %L', t.program)
            WHEN t.gate = 2 THEN (
                SELECT format('workflow %s may have %s at once', t.task_id COLLATE "default", concat_ws(' and ',
                              w.max_running_flows || CASE w.max_running_flows WHEN 1 THEN ' running flow' ELSE ' running flows' END,
                              w.max_running_tasks || CASE w.max_running_tasks WHEN 1 THEN ' running task' ELSE ' running tasks' END))
                FROM ms_workflow w WHERE w.task_id = t.task_id)
            ELSE 'can go: waits for a free worker' END AS why,
       b.waits_for, t.registered_ts AS since, t.run_after
FROM   kr_task_stat t
LEFT JOIN LATERAL (
    SELECT array_agg(d ORDER BY d) AS waits_for,
           min(d) FILTER (WHERE p.exec_status IS NULL) AS missing,
           min(d) FILTER (WHERE p.exec_status = 2) AS stopped,
           min(coalesce(p.reason, 'suspended')) FILTER (WHERE p.exec_status = 2) AS stopped_why
    FROM   (SELECT DISTINCT unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))) x(d)
    -- by the key of each: the planner would read the whole flow for each of its tasks
    LEFT   JOIN LATERAL (SELECT p.exec_status, p.reason FROM kr_task_stat p
                         WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d OFFSET 0) p ON true
    WHERE  p.exec_status IS NULL OR p.exec_status NOT IN (3, 9)
) b ON t.unmet > 0
WHERE  t.exec_status = 0;

CREATE OR REPLACE VIEW v_task AS
SELECT t.task_flow_id, t.task_exec_seq, flower_title(t.description, t.program) AS title,
       CASE WHEN t.exec_status = 2 THEN coalesce(t.reason, 'suspended') ELSE flower_status_word(t.exec_status) END AS status,
       w.why, flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs) AS depends_on,
       t.program, t.attempt, t.max_attempts, k.host || ':' || k.pid AS watcher,
       t.started_ts - t.registered_ts AS waited,
       CASE WHEN t.exec_status <> 0 THEN coalesce(t.finished_ts, t.suspended_ts, CASE WHEN t.exec_status = 1 THEN clock_timestamp() END) - t.started_ts END AS took,
       t.task_priority, t.error, t.task_id, t.task_seq, t.started_ts, coalesce(t.finished_ts, t.suspended_ts) AS ended_ts
FROM   kr_task_stat t
LEFT   JOIN v_why_waiting w ON w.task_flow_id = t.task_flow_id AND w.task_exec_seq = t.task_exec_seq
LEFT   JOIN kr_watcher k ON k.watcher_id = t.watcher_id;
COMMENT ON COLUMN v_task.why IS 'Why it waits.';

DROP VIEW v_flow;
CREATE VIEW v_flow AS
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
       CASE WHEN c.running = 0 AND c.can_go = 0 THEN c.ended_ts ELSE statement_timestamp() END - c.started_ts AS took
FROM   kr_flow f
CROSS JOIN LATERAL (
    SELECT count(*) AS tasks,
           count(*) FILTER (WHERE exec_status = 0) AS waiting,
           count(*) FILTER (WHERE exec_status = 0 AND unmet = 0) AS can_go,
           count(*) FILTER (WHERE exec_status = 1) AS running,
           count(*) FILTER (WHERE exec_status = 2) AS suspended,
           count(*) FILTER (WHERE exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')) AS failed,
           count(*) FILTER (WHERE exec_status = 2 AND reason = 'held') AS held,
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
COMMENT ON VIEW v_flow IS 'One row per flow, with what became of it. SELECT * FROM v_flow ORDER BY registered_ts DESC LIMIT 20;';
COMMENT ON COLUMN v_flow.status IS 'running, failed, held, cancelled, queued or finished: the first that fits.';
COMMENT ON COLUMN v_flow.progress IS 'Finished and ignored tasks, of all.';
COMMENT ON COLUMN v_flow.failed_task IS 'task_exec_seq of the task that failed first.';
COMMENT ON COLUMN v_flow.error IS 'The first line of its error.';
COMMENT ON COLUMN v_flow.suspended IS 'Its tasks at 2, for whatever reason.';
COMMENT ON COLUMN v_flow.registered_by IS 'Who registered it; empty if its rows were inserted by hand.';
COMMENT ON COLUMN v_flow.started_ts IS 'When its first task started.';
COMMENT ON COLUMN v_flow.ended_ts IS 'When its last task ended; empty while something of it runs or could run.';
COMMENT ON COLUMN v_flow.took IS 'From started_ts to ended_ts, or until now.';
