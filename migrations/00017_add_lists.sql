-- +goose Up

-- What lists walk along. None of these holds anything of a task that waits in the queue,
-- runs or has finished, and none is on a column that a claim or a finish changes: those
-- stay HOT. A flow costs two entries more when it is registered, a task those of stopped
-- ones when it is suspended.

CREATE INDEX kr_flow_workflow ON kr_flow (task_id, registered_ts, task_flow_id);
-- left: an index takes no longer texts, and the column does.
CREATE INDEX kr_flow_registrar ON kr_flow (left(registered_by, 200), registered_ts, task_flow_id) WHERE registered_by IS NOT NULL;

-- Of suspended tasks, by reason: flows that failed, are held or cancelled.
CREATE INDEX kr_task_stopped ON kr_task_stat (coalesce(reason, ''), registered_ts, task_flow_id) WHERE suspended_ts IS NOT NULL;
CREATE INDEX kr_task_stopped_of ON kr_task_stat (task_id, coalesce(reason, ''), registered_ts, task_flow_id) WHERE suspended_ts IS NOT NULL;
-- By what they look like: flows, and groups. Whoever changes flower_fingerprint must build
-- these two anew.
CREATE INDEX kr_task_alike ON kr_task_stat (flower_fingerprint(error), registered_ts, task_flow_id) WHERE suspended_ts IS NOT NULL;
CREATE INDEX kr_task_failed_alike
ON kr_task_stat (flower_fingerprint(error), task_id, task_seq, coalesce(program, ''), coalesce(reason, ''), suspended_ts)
WHERE suspended_ts IS NOT NULL AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled');
-- Of tasks that could go but are not in the queue: they wait for a time or a limit.
CREATE INDEX kr_task_put_off ON kr_task_stat (registered_ts, task_flow_id) WHERE gate = 2 OR run_after IS NOT NULL;

CREATE INDEX kr_event_actor ON kr_event (left(actor, 200), event_id);

-- How much was done, minute by minute. No index can tell: it would have to hold each task's
-- end, and a finish would not be HOT any more. So watchers count what they record.
CREATE TABLE kr_tally (
    tally_ts   timestamptz NOT NULL,
    tallied_by uuid        NOT NULL,
    finished   integer     NOT NULL DEFAULT 0,
    failed     integer     NOT NULL DEFAULT 0,
    retried    integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tally_ts, tallied_by)
) WITH (fillfactor = 50);
COMMENT ON TABLE kr_tally IS
    'How many attempts ended, minute by minute, as watchers counted them: what people set by hand is not in it, nor the last seconds of a watcher that was killed. Old rows may be deleted at any time; after 400 days they go by themselves.';
COMMENT ON COLUMN kr_tally.tally_ts IS 'The beginning of the minute.';
COMMENT ON COLUMN kr_tally.tallied_by IS 'A process: each has a row of its own.';
COMMENT ON COLUMN kr_tally.finished IS 'Tasks that finished.';
COMMENT ON COLUMN kr_tally.failed IS 'Tasks that failed for good, and were suspended.';
COMMENT ON COLUMN kr_tally.retried IS 'Attempts that failed and are followed by another one.';

-- flower_ready_since is since when a task that waits could go, as far as its row and those
-- of the tasks that it depends on can tell.
CREATE FUNCTION flower_ready_since(flow varchar, seq integer) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT greatest(t.registered_ts, (SELECT max(a.ended_ts) FROM kr_task_attempt a WHERE a.task_flow_id = flow AND a.task_exec_seq = seq),
                        (SELECT max(p.finished_ts) FROM unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
                         CROSS JOIN LATERAL (SELECT s.finished_ts FROM kr_task_stat s
                                             WHERE s.task_flow_id = flow AND s.task_exec_seq = d OFFSET 0) p))
        FROM kr_task_stat t WHERE t.task_flow_id = flow AND t.task_exec_seq = seq);
COMMENT ON FUNCTION flower_ready_since(varchar, integer) IS 'Since when a waiting task could go: its registration, its last attempt, or the end of what it depends on.';

-- flower_usual is how long a task of a workflow took in its last hundred flows. A task is
-- looked up by its key: its flow may have ten thousand.
-- +goose StatementBegin
CREATE FUNCTION flower_usual(workflow varchar, exec_seq integer, seq integer, OUT p50 interval, OUT p95 interval)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t.took), percentile_cont(0.95) WITHIN GROUP (ORDER BY t.took)
    FROM   (SELECT k.task_flow_id FROM kr_flow k WHERE k.task_id = workflow ORDER BY k.registered_ts DESC, k.task_flow_id DESC LIMIT 100) f
    CROSS  JOIN LATERAL (SELECT s.finished_ts - s.started_ts AS took FROM kr_task_stat s
                         WHERE s.task_flow_id = f.task_flow_id AND s.task_exec_seq = exec_seq AND s.task_seq = seq AND s.exec_status = 3 OFFSET 0) t;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION flower_usual(varchar, integer, integer) IS 'How long a task of a workflow took in its last hundred flows: the median, and what 95 of 100 took at most.';

-- What people at psql ask next: since when it could go and why it does not; whether it takes
-- longer than usual. Each is looked up by key.
CREATE OR REPLACE VIEW v_queue AS
SELECT r.position, r.task_priority, t.task_id, r.task_flow_id, r.task_exec_seq, t.title, t.program, r.registered_ts,
       flower_ready_since(r.task_flow_id, r.task_exec_seq) AS ready_since,
       statement_timestamp() - flower_ready_since(r.task_flow_id, r.task_exec_seq) AS waited,
       (SELECT w.why FROM v_why_waiting w WHERE w.task_flow_id = r.task_flow_id AND w.task_exec_seq = r.task_exec_seq) AS why
FROM   (SELECT row_number() OVER (ORDER BY task_priority, registered_ts, task_flow_id, task_exec_seq) AS position,
               task_priority, registered_ts, task_flow_id, task_exec_seq
        FROM   kr_ready) r
CROSS  JOIN LATERAL (SELECT s.task_id, flower_title(s.description, s.program) AS title, s.program FROM kr_task_stat s
                     WHERE s.task_flow_id = r.task_flow_id AND s.task_exec_seq = r.task_exec_seq OFFSET 0) t
ORDER  BY r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq;
COMMENT ON COLUMN v_queue.ready_since IS 'Since when it could go: its registration, its last attempt, or the end of what it depends on.';
COMMENT ON COLUMN v_queue.waited IS 'Since then.';
COMMENT ON COLUMN v_queue.why IS 'Why it does not run yet.';

CREATE OR REPLACE VIEW v_running AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title, t.program,
       w.host || ':' || w.pid AS watcher, t.attempt, t.started_ts, clock_timestamp() - t.started_ts AS running_for,
       clock_timestamp() - w.heartbeat_ts AS heartbeat_age,
       CASE WHEN t.watcher_id IS NULL THEN 'belongs to no watcher: inserted by hand'
            WHEN w.watcher_id IS NULL THEN 'its watcher is gone: it will be rescued'
            WHEN w.lease_until < clock_timestamp() THEN 'no heartbeat: it will be rescued' END AS note,
       (SELECT u.p95 FROM flower_usual(t.task_id, t.task_exec_seq, t.task_seq) u) AS usual
FROM   (SELECT r.flow AS task_flow_id, r.seq AS task_exec_seq
        FROM   kr_watcher, unnest(running_flow_ids, running_exec_seqs) r(flow, seq)
        UNION
        SELECT task_flow_id, task_exec_seq FROM kr_unowned
        UNION
        SELECT task_flow_id, task_exec_seq FROM kr_task_stat WHERE exec_status = 1 AND ctid >= flower_newest()) k
CROSS  JOIN LATERAL (SELECT s.task_flow_id, s.task_exec_seq, s.task_id, s.task_seq, s.description, s.program, s.attempt, s.started_ts, s.watcher_id
                     FROM kr_task_stat s
                     WHERE s.task_flow_id = k.task_flow_id AND s.task_exec_seq = k.task_exec_seq AND s.exec_status = 1 OFFSET 0) t
LEFT   JOIN kr_watcher w ON w.watcher_id = t.watcher_id;
COMMENT ON COLUMN v_running.usual IS 'What 95 of its last hundred runs took at most.';

-- +goose Down
DROP VIEW v_running, v_queue;
CREATE VIEW v_running AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title, t.program,
       w.host || ':' || w.pid AS watcher, t.attempt, t.started_ts, clock_timestamp() - t.started_ts AS running_for,
       clock_timestamp() - w.heartbeat_ts AS heartbeat_age,
       CASE WHEN t.watcher_id IS NULL THEN 'belongs to no watcher: inserted by hand'
            WHEN w.watcher_id IS NULL THEN 'its watcher is gone: it will be rescued'
            WHEN w.lease_until < clock_timestamp() THEN 'no heartbeat: it will be rescued' END AS note
FROM   (SELECT r.flow AS task_flow_id, r.seq AS task_exec_seq
        FROM   kr_watcher, unnest(running_flow_ids, running_exec_seqs) r(flow, seq)
        UNION
        SELECT task_flow_id, task_exec_seq FROM kr_unowned
        UNION
        SELECT task_flow_id, task_exec_seq FROM kr_task_stat WHERE exec_status = 1 AND ctid >= flower_newest()) k
CROSS  JOIN LATERAL (SELECT s.task_flow_id, s.task_exec_seq, s.depends_task_exec_seq, s.task_id, s.task_seq, s.exec_status,
                            s.task_priority, s.registered_ts, s.started_ts, s.finished_ts, s.suspended_ts, s.attempt, s.attempt_base,
                            s.failed_count, s.lost_count, s.unmet, s.claim_id, s.watcher_id, s.run_after, s.reason, s.error, s.output,
                            s.depends_task_exec_seqs, s.dependents, s.program, s.parameters, s.max_attempts, s.retry_delay, s.timeout,
                            s.on_lost, s.hold, s.description, s.gate
                     FROM kr_task_stat s
                     WHERE s.task_flow_id = k.task_flow_id AND s.task_exec_seq = k.task_exec_seq AND s.exec_status = 1 OFFSET 0) t
LEFT   JOIN kr_watcher w ON w.watcher_id = t.watcher_id;
COMMENT ON VIEW v_running IS
    'Tasks that run now; of a large table, at the latest 2 s after their start. SELECT * FROM v_running ORDER BY started_ts;';
COMMENT ON COLUMN v_running.note IS 'What is odd about it.';
COMMENT ON COLUMN v_running.watcher IS 'The host and process of its watcher.';
COMMENT ON COLUMN v_running.running_for IS 'Since the start of its present attempt.';
COMMENT ON COLUMN v_running.heartbeat_age IS 'Since its watcher''s last heartbeat; they come every 2 s.';
CREATE VIEW v_queue AS
SELECT r.position, r.task_priority, t.task_id, r.task_flow_id, r.task_exec_seq, t.title, t.program, r.registered_ts
FROM   (SELECT row_number() OVER (ORDER BY task_priority, registered_ts, task_flow_id, task_exec_seq) AS position,
               task_priority, registered_ts, task_flow_id, task_exec_seq
        FROM   kr_ready) r
CROSS  JOIN LATERAL (SELECT s.task_id, flower_title(s.description, s.program) AS title, s.program FROM kr_task_stat s
                     WHERE s.task_flow_id = r.task_flow_id AND s.task_exec_seq = r.task_exec_seq OFFSET 0) t
ORDER  BY r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq;
COMMENT ON VIEW v_queue IS 'Tasks that can go now, in the order of claims. SELECT * FROM v_queue LIMIT 20;';
COMMENT ON COLUMN v_queue.position IS '1 goes next.';
COMMENT ON COLUMN v_queue.registered_ts IS 'Among tasks of one priority the one registered earlier goes first.';
DROP FUNCTION flower_usual(varchar, integer, integer), flower_ready_since(varchar, integer);
DROP TABLE kr_tally;
DROP INDEX kr_event_actor, kr_task_put_off, kr_task_failed_alike, kr_task_alike, kr_task_stopped_of, kr_task_stopped, kr_flow_registrar, kr_flow_workflow;
