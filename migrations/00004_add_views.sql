-- +goose Up

-- The views are for people at psql, and are what the API reads. Columns are only ever
-- added.

-- flower_status_word is what people call the state of a task.
CREATE FUNCTION flower_status_word(status smallint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE status WHEN 0 THEN 'waiting' WHEN 1 THEN 'running' WHEN 2 THEN 'suspended' WHEN 3 THEN 'finished' WHEN 9 THEN 'ignored' END;

-- flower_title is what people call a task.
CREATE FUNCTION flower_title(description text, program text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(nullif(btrim(split_part(description, E'\n', 1)), ''), program);

-- flower_fingerprint is the same for errors that differ only in numbers and ids.
CREATE FUNCTION flower_fingerprint(error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(md5(regexp_replace(split_part(coalesce(error, ''), E'\n', 1), '[0-9a-fA-F-]{8,}|[0-9]+', '#', 'g')), 12);

-- One row per flow, from kr_flow: what became of its tasks is counted for the flows that
-- are asked for alone, by the key of kr_task_stat.
CREATE VIEW v_flow AS
SELECT f.task_flow_id, f.task_id,
       CASE WHEN c.running > 0 OR (c.can_go > 0 AND c.finished + c.ignored > 0) THEN 'running'
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
       CASE WHEN c.running = 0 AND c.can_go = 0 THEN c.ended_ts ELSE clock_timestamp() END - c.started_ts AS took
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
           min(started_ts) AS started_ts,
           max(greatest(finished_ts, suspended_ts)) AS ended_ts
    FROM   kr_task_stat t WHERE t.task_flow_id = f.task_flow_id
) c
LEFT JOIN LATERAL (
    SELECT task_exec_seq, coalesce(t.error, t.reason) AS error
    FROM   kr_task_stat t
    WHERE  t.task_flow_id = f.task_flow_id AND exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')
    ORDER  BY suspended_ts, task_exec_seq
    LIMIT  1
) x ON true
WHERE c.tasks > 0;
COMMENT ON VIEW v_flow IS 'One row per flow, with what became of it. SELECT * FROM v_flow ORDER BY registered_ts DESC LIMIT 20;';
COMMENT ON COLUMN v_flow.status IS 'running, failed, held, cancelled, queued or finished: the first that fits.';
COMMENT ON COLUMN v_flow.progress IS 'Finished and ignored tasks, of all.';
COMMENT ON COLUMN v_flow.failed_task IS 'task_exec_seq of the task that failed first.';
COMMENT ON COLUMN v_flow.error IS 'The first line of its error.';

-- One row per waiting task: why it does not run yet.
CREATE VIEW v_why_waiting AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title,
       CASE WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN 'blocked'
            WHEN t.unmet > 0 THEN 'dependency'
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0 THEN 'retry'
            WHEN t.run_after IS NOT NULL THEN 'time'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN 'no_watcher'
            ELSE 'queued' END AS wait_reason,
       CASE WHEN t.unmet > 0 AND b.missing IS NOT NULL THEN format('task %s, which it depends on, does not exist', b.missing)
            WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN format('blocked by task %s (%s)', b.stopped, b.stopped_why)
            WHEN t.unmet > 0 THEN format('waits for task %s', array_to_string(b.waits_for, ', '))
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0
                 THEN format('attempt %s failed, the next one starts after %s', t.attempt, to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ'))
            WHEN t.run_after IS NOT NULL THEN format('not before %s', to_char(t.run_after, 'YYYY-MM-DD HH24:MI:SS TZ'))
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining) THEN 'no watcher is running'
            WHEN t.program IS NULL THEN 'it has no program'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN format('no watcher has the program %L', t.program)
            ELSE 'can go: waits for a free worker' END AS why,
       b.waits_for, t.registered_ts AS since, t.run_after
FROM   kr_task_stat t
LEFT JOIN LATERAL (
    SELECT array_agg(d ORDER BY d) AS waits_for,
           min(d) FILTER (WHERE p.task_flow_id IS NULL) AS missing,
           min(d) FILTER (WHERE p.exec_status = 2) AS stopped,
           min(coalesce(p.reason, 'suspended')) FILTER (WHERE p.exec_status = 2) AS stopped_why
    FROM   (SELECT DISTINCT unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))) x(d)
    LEFT   JOIN kr_task_stat p ON p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d
    WHERE  p.task_flow_id IS NULL OR p.exec_status NOT IN (3, 9)
) b ON t.unmet > 0
WHERE  t.exec_status = 0;
COMMENT ON VIEW v_why_waiting IS 'One row per waiting task, with the reason in one word and as a sentence. Use it WITH a WHERE task_flow_id = ''…''.';
COMMENT ON COLUMN v_why_waiting.waits_for IS 'The tasks that it depends on and that are neither finished nor ignored.';
COMMENT ON COLUMN v_why_waiting.wait_reason IS 'dependency, blocked (by a suspended task), retry, time (run_after), no_watcher, queued.';

CREATE VIEW v_task AS
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
COMMENT ON VIEW v_task IS 'One row per task, readable. SELECT * FROM v_task WHERE task_flow_id = ''…'' ORDER BY task_exec_seq;';
COMMENT ON COLUMN v_task.status IS 'waiting, running, finished or ignored; of a suspended task its reason.';
COMMENT ON COLUMN v_task.why IS 'Why it waits.';
COMMENT ON COLUMN v_task.waited IS 'From its registration to its present start.';
COMMENT ON COLUMN v_task.took IS 'Of its present attempt.';

CREATE VIEW v_failed AS
SELECT t.suspended_ts, t.task_id, t.task_flow_id, t.task_exec_seq, flower_title(t.description, t.program) AS title,
       t.program, t.reason, t.attempt, t.error,
       (WITH RECURSIVE after AS (
            SELECT unnest(t.dependents) AS seq
            UNION
            SELECT unnest(n.dependents) FROM after a
            JOIN kr_task_stat n ON n.task_flow_id = t.task_flow_id AND n.task_exec_seq = a.seq)
        SELECT count(*) FROM after a JOIN kr_task_stat n ON n.task_flow_id = t.task_flow_id AND n.task_exec_seq = a.seq
        WHERE n.exec_status = 0) AS blocks,
       format('UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = %L AND task_exec_seq = %s AND exec_status = 2;',
              t.task_flow_id, t.task_exec_seq) AS rerun
FROM   kr_task_stat t
WHERE  t.exec_status = 2 AND t.suspended_ts IS NOT NULL AND coalesce(t.reason, 'failed') NOT IN ('held', 'cancelled');
COMMENT ON VIEW v_failed IS 'Tasks that failed and were not yet repaired. SELECT * FROM v_failed ORDER BY suspended_ts DESC LIMIT 20;';
COMMENT ON COLUMN v_failed.blocks IS 'How many waiting tasks wait for it, directly or not.';
COMMENT ON COLUMN v_failed.rerun IS 'The statement that runs it again, and then what follows.';

CREATE VIEW v_failure_group AS
SELECT count(*) AS tasks, count(DISTINCT task_flow_id) AS flows, task_id, task_seq, min(flower_title(description, program)) AS title,
       program, reason, min(left(split_part(error, E'\n', 1), 200)) AS error, fingerprint,
       min(suspended_ts) AS first_ts, max(suspended_ts) AS last_ts,
       format('UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2 AND suspended_ts IS NOT NULL AND task_id = %L AND task_seq = %s AND program %s AND reason %s AND flower_fingerprint(error) = %L;',
              task_id, task_seq, coalesce('= ' || quote_literal(program), 'IS NULL'), coalesce('= ' || quote_literal(reason), 'IS NULL'), fingerprint) AS rerun
FROM   (SELECT t.*, flower_fingerprint(t.error) AS fingerprint
        FROM kr_task_stat t
        WHERE t.exec_status = 2 AND t.suspended_ts IS NOT NULL AND coalesce(t.reason, 'failed') NOT IN ('held', 'cancelled')) t
GROUP  BY task_id, task_seq, program, reason, fingerprint;
COMMENT ON VIEW v_failure_group IS 'Failures that look alike, with the statement that runs them all again. SELECT * FROM v_failure_group ORDER BY tasks DESC;';
COMMENT ON COLUMN v_failure_group.rerun IS 'The statement that runs these tasks again, and no others.';
COMMENT ON COLUMN v_failure_group.fingerprint IS 'The same for errors that differ only in numbers and ids.';

CREATE VIEW v_running AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title, t.program,
       w.host || ':' || w.pid AS watcher, t.attempt, t.started_ts, clock_timestamp() - t.started_ts AS running_for,
       clock_timestamp() - w.heartbeat_ts AS heartbeat_age,
       CASE WHEN t.watcher_id IS NULL THEN 'belongs to no watcher: inserted by hand'
            WHEN w.watcher_id IS NULL THEN 'its watcher is gone: it will be rescued'
            WHEN w.lease_until < clock_timestamp() THEN 'no heartbeat: it will be rescued' END AS note
FROM   kr_task_stat t
LEFT   JOIN kr_watcher w ON w.watcher_id = t.watcher_id
WHERE  t.exec_status = 1;
COMMENT ON VIEW v_running IS 'Tasks that run now. SELECT * FROM v_running ORDER BY started_ts;';
COMMENT ON COLUMN v_running.note IS 'What is odd about it.';

CREATE VIEW v_queue AS
SELECT row_number() OVER (ORDER BY r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq) AS position,
       r.task_priority, t.task_id, r.task_flow_id, r.task_exec_seq, flower_title(t.description, t.program) AS title, t.program,
       r.registered_ts
FROM   kr_ready r
JOIN   kr_task_stat t ON t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq;
COMMENT ON VIEW v_queue IS 'Tasks that can go now, in the order of claims. SELECT * FROM v_queue LIMIT 20;';

CREATE VIEW v_watcher AS
SELECT watcher_id, host, pid, version, programs, workers, busy,
       CASE WHEN lease_until < clock_timestamp() THEN 'dead'
            WHEN clock_timestamp() - heartbeat_ts > interval '4 s' THEN 'late'
            WHEN draining THEN 'draining' ELSE 'alive' END AS state,
       heartbeat_ts, clock_timestamp() - heartbeat_ts AS heartbeat_age, started_ts
FROM   kr_watcher;
COMMENT ON VIEW v_watcher IS 'Watchers that run, or that vanished less than a moment ago.';
COMMENT ON COLUMN v_watcher.state IS 'alive, draining (it ends what runs and claims nothing), late (with its heartbeat) or dead (others take over its tasks).';
COMMENT ON COLUMN v_watcher.busy IS 'Tasks that it ran at its last heartbeat, of so many workers.';

-- Rules that hold at every moment. It reads the whole table.
CREATE VIEW v_invariant AS
SELECT 'unmet counts what is not satisfied' AS rule, t.task_flow_id, t.task_exec_seq,
       format('unmet is %s', coalesce(t.unmet::text, 'NULL')) AS detail
FROM   kr_task_stat t
WHERE  t.exec_status = 0
       AND t.unmet IS DISTINCT FROM (SELECT count(DISTINCT d) FROM unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
                                     WHERE ((SELECT p.exec_status FROM kr_task_stat p WHERE p.task_flow_id = t.task_flow_id
                                             AND p.task_exec_seq = d) IN (3, 9)) IS NOT TRUE)
UNION ALL
SELECT 'what can go is in the queue', t.task_flow_id, t.task_exec_seq, 'no entry in kr_ready'
FROM   kr_task_stat t
WHERE  t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL
       AND NOT EXISTS (SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
                       AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq)
UNION ALL
SELECT 'only what can go is in the queue', r.task_flow_id, r.task_exec_seq, 'its task cannot go'
FROM   kr_ready r
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
                   AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL
                   AND t.task_priority = r.task_priority AND t.registered_ts = r.registered_ts)
UNION ALL
SELECT 'owned means running', t.task_flow_id, t.task_exec_seq, format('exec_status is %s, watcher_id is %s', t.exec_status, t.watcher_id)
FROM   kr_task_stat t
WHERE  t.watcher_id IS NOT NULL AND t.exec_status <> 1
UNION ALL
SELECT 'only a suspended task has a reason', t.task_flow_id, t.task_exec_seq, format('exec_status is %s, reason is %s', t.exec_status, t.reason)
FROM   kr_task_stat t
WHERE  t.reason IS NOT NULL AND t.exec_status <> 2
UNION ALL
SELECT 'a task knows its dependents', t.task_flow_id, t.task_exec_seq, format('task %s does not list it', d)
FROM   kr_task_stat t
CROSS  JOIN unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
JOIN   kr_task_stat p ON p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d
WHERE  NOT t.task_exec_seq = ANY (p.dependents);
COMMENT ON VIEW v_invariant IS 'What should never be: must be empty. A sweep repairs it within a minute or two. Reads the whole table.';

-- +goose Down
DROP VIEW v_invariant, v_watcher, v_queue, v_running, v_failure_group, v_failed, v_task, v_why_waiting, v_flow;
DROP FUNCTION flower_fingerprint(text), flower_title(text, text), flower_status_word(smallint);
