-- +goose Up

-- v_invariant reads the whole table, and must not be read by whoever asks whether all is
-- well. Watchers do it now and then, and leave here what they saw.
CREATE TABLE kr_check (
    one          boolean     PRIMARY KEY DEFAULT true CHECK (one),
    checked_ts   timestamptz NOT NULL,
    took         interval    NOT NULL,
    broken       jsonb       NOT NULL DEFAULT '[]',
    broken_since timestamptz,
    repaired     jsonb       NOT NULL DEFAULT '[]',
    repaired_ts  timestamptz
);
COMMENT ON TABLE kr_check IS 'Kept by Flower, one row: what v_invariant had when a watcher last read it. /readyz shows it.';
COMMENT ON COLUMN kr_check.one IS 'There is only one row.';
COMMENT ON COLUMN kr_check.checked_ts IS 'When v_invariant was last read: every minute or so; less often where that takes long.';
COMMENT ON COLUMN kr_check.took IS 'How long that took.';
COMMENT ON COLUMN kr_check.broken IS 'The rules that were broken, with how many rows break each of them and one of these. [] is none: all is well.';
COMMENT ON COLUMN kr_check.broken_since IS 'When rules were first seen to be broken.';
COMMENT ON COLUMN kr_check.repaired IS 'The rules that were broken before, and hold again.';
COMMENT ON COLUMN kr_check.repaired_ts IS 'When they were seen to hold again.';

-- Where to look for what runs. No index can tell: it would have to change with every
-- claim and every finish, which would then not be HOT any more. So each watcher says with
-- its heartbeat what it runs.
ALTER TABLE kr_watcher
    ADD COLUMN running_flow_ids  varchar(256)[] COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN running_exec_seqs integer[]                  NOT NULL DEFAULT '{}';
COMMENT ON COLUMN kr_watcher.running_flow_ids IS 'task_flow_id of the tasks that it ran at its last heartbeat.';
COMMENT ON COLUMN kr_watcher.running_exec_seqs IS 'Their task_exec_seq, in the same order.';

-- What runs for nobody's heartbeat was inserted at 1 by hand: kr_unowned remembers it.
CREATE TABLE kr_unowned (
    task_flow_id  varchar(256) COLLATE "C" NOT NULL,
    task_exec_seq integer NOT NULL,
    PRIMARY KEY (task_flow_id, task_exec_seq)
);
COMMENT ON TABLE kr_unowned IS 'Kept by Flower: tasks that were inserted at 1 by hand, and that somebody else runs. Some may have ended.';

-- +goose StatementBegin
CREATE FUNCTION flower_task_unowned() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO kr_unowned (task_flow_id, task_exec_seq) VALUES (NEW.task_flow_id, NEW.task_exec_seq) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_task_unowned AFTER INSERT ON kr_task_stat
FOR EACH ROW WHEN (NEW.exec_status = 1) EXECUTE FUNCTION flower_task_unowned();

INSERT INTO kr_unowned (task_flow_id, task_exec_seq)
SELECT task_flow_id, task_exec_seq FROM kr_task_stat WHERE exec_status = 1 AND watcher_id IS NULL;

-- flower_task_at_odds: somebody gave a task a reason or an owner that its exec_status
-- contradicts. No statement of the engine names these columns but where it means them.
-- +goose StatementBegin
CREATE FUNCTION flower_task_at_odds() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task text := format('task %s of flow %s', NEW.task_exec_seq, left(NEW.task_flow_id, 100));
BEGIN
    IF NEW.reason IS NOT NULL AND NEW.exec_status <> 2 THEN
        RAISE EXCEPTION '%: only a suspended task has a reason, and this one is at %', task, NEW.exec_status
            USING HINT = 'To stop it for that reason, set exec_status to 2 in the same statement.', ERRCODE = 'check_violation';
    END IF;
    RAISE EXCEPTION '%: watcher_id is kept by Flower', task
        USING HINT = 'Leave it empty.', ERRCODE = 'check_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_task_at_odds AFTER UPDATE OF reason ON kr_task_stat
FOR EACH ROW WHEN (NEW.reason IS NOT NULL AND NEW.exec_status <> 2 AND OLD.exec_status = NEW.exec_status)
EXECUTE FUNCTION flower_task_at_odds();
CREATE TRIGGER kr_task_inserted_at_odds AFTER INSERT ON kr_task_stat
FOR EACH ROW WHEN (NEW.watcher_id IS NOT NULL AND NEW.exec_status <> 1 OR NEW.reason IS NOT NULL AND NEW.exec_status <> 2)
EXECUTE FUNCTION flower_task_at_odds();

-- flower_newest returns where the last 16 MiB of kr_task_stat begin. STABLE, though the
-- size is not: or the planner would read the whole table to look.
-- +goose StatementBegin
CREATE FUNCTION flower_newest() RETURNS tid
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN format('(%s,0)', greatest(0, (pg_relation_size('kr_task_stat') - (16 << 20)) / current_setting('block_size')::integer))::tid;
END $$;
-- +goose StatementEnd

-- A function that is VOLATILE, as clock_timestamp is, keeps a view from being planned as
-- a part of the statement that reads it. v_flow then counted every flow before it sorted
-- them: 14 s instead of a millisecond with a million flows. So views for lists know the
-- time by statement_timestamp.
CREATE OR REPLACE VIEW v_flow AS
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

-- Looked for where it may be, and each of these by its key. What watchers say is as old
-- as their last heartbeat, so that a task that has only just started may be missing from
-- it; it is shown if its row is among the newest ones, as is that of a new flow.
CREATE OR REPLACE VIEW v_running AS
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
CROSS  JOIN LATERAL (SELECT * FROM kr_task_stat s
                     WHERE s.task_flow_id = k.task_flow_id AND s.task_exec_seq = k.task_exec_seq AND s.exec_status = 1 OFFSET 0) t
LEFT   JOIN kr_watcher w ON w.watcher_id = t.watcher_id;
COMMENT ON VIEW v_running IS
    'Tasks that run now; of a large table, at the latest 2 s after their start. SELECT * FROM v_running ORDER BY started_ts;';

-- The place in the queue is counted before anything else is looked up.
CREATE OR REPLACE VIEW v_queue AS
SELECT r.position, r.task_priority, t.task_id, r.task_flow_id, r.task_exec_seq, t.title, t.program, r.registered_ts
FROM   (SELECT row_number() OVER (ORDER BY task_priority, registered_ts, task_flow_id, task_exec_seq) AS position,
               task_priority, registered_ts, task_flow_id, task_exec_seq
        FROM   kr_ready) r
CROSS  JOIN LATERAL (SELECT s.task_id, flower_title(s.description, s.program) AS title, s.program FROM kr_task_stat s
                     WHERE s.task_flow_id = r.task_flow_id AND s.task_exec_seq = r.task_exec_seq OFFSET 0) t
ORDER  BY r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq;

-- Of failures alone: thousands of held or cancelled tasks are not to be read on the way.
CREATE INDEX kr_task_failed ON kr_task_stat (suspended_ts)
WHERE suspended_ts IS NOT NULL AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled');

-- What the names of columns do not say.
COMMENT ON COLUMN v_flow.suspended IS 'Its tasks at 2, for whatever reason.';
COMMENT ON COLUMN v_flow.registered_by IS 'Who registered it; empty if its rows were inserted by hand.';
COMMENT ON COLUMN v_flow.started_ts IS 'When its first task started.';
COMMENT ON COLUMN v_flow.ended_ts IS 'When its last task ended; empty while something of it runs or could run.';
COMMENT ON COLUMN v_flow.took IS 'From started_ts to ended_ts, or until now.';
COMMENT ON COLUMN v_task.depends_on IS 'task_exec_seq of what must be finished or ignored before it.';
COMMENT ON COLUMN v_task.watcher IS 'Where it runs: the host and process of its watcher.';
COMMENT ON COLUMN v_task.ended_ts IS 'When it finished or was suspended.';
COMMENT ON COLUMN v_why_waiting.why IS 'The reason as a sentence.';
COMMENT ON COLUMN v_why_waiting.since IS 'When it was registered.';
COMMENT ON COLUMN v_failed.suspended_ts IS 'When it failed for good.';
COMMENT ON COLUMN v_failure_group.tasks IS 'How many failed so.';
COMMENT ON COLUMN v_failure_group.flows IS 'Of how many flows they are.';
COMMENT ON COLUMN v_failure_group.error IS 'The first line of the error of one of them.';
COMMENT ON COLUMN v_failure_group.first_ts IS 'When the first of them failed.';
COMMENT ON COLUMN v_failure_group.last_ts IS 'When the last of them failed.';
COMMENT ON COLUMN v_running.watcher IS 'The host and process of its watcher.';
COMMENT ON COLUMN v_running.running_for IS 'Since the start of its present attempt.';
COMMENT ON COLUMN v_running.heartbeat_age IS 'Since its watcher''s last heartbeat; they come every 2 s.';
COMMENT ON COLUMN v_queue.position IS '1 goes next.';
COMMENT ON COLUMN v_queue.registered_ts IS 'Among tasks of one priority the one registered earlier goes first.';
COMMENT ON COLUMN v_watcher.programs IS 'What it can run; it claims nothing else.';
COMMENT ON COLUMN v_watcher.workers IS 'How many tasks it runs at a time, at most.';
COMMENT ON COLUMN v_watcher.heartbeat_age IS 'Since its last heartbeat; they come every 2 s.';

-- +goose Down
COMMENT ON COLUMN v_flow.suspended IS NULL;
COMMENT ON COLUMN v_flow.registered_by IS NULL;
COMMENT ON COLUMN v_flow.started_ts IS NULL;
COMMENT ON COLUMN v_flow.ended_ts IS NULL;
COMMENT ON COLUMN v_flow.took IS NULL;
COMMENT ON COLUMN v_task.depends_on IS NULL;
COMMENT ON COLUMN v_task.watcher IS NULL;
COMMENT ON COLUMN v_task.ended_ts IS NULL;
COMMENT ON COLUMN v_why_waiting.why IS NULL;
COMMENT ON COLUMN v_why_waiting.since IS NULL;
COMMENT ON COLUMN v_failed.suspended_ts IS NULL;
COMMENT ON COLUMN v_failure_group.tasks IS NULL;
COMMENT ON COLUMN v_failure_group.flows IS NULL;
COMMENT ON COLUMN v_failure_group.error IS NULL;
COMMENT ON COLUMN v_failure_group.first_ts IS NULL;
COMMENT ON COLUMN v_failure_group.last_ts IS NULL;
COMMENT ON COLUMN v_running.watcher IS NULL;
COMMENT ON COLUMN v_running.running_for IS NULL;
COMMENT ON COLUMN v_running.heartbeat_age IS NULL;
COMMENT ON COLUMN v_queue.position IS NULL;
COMMENT ON COLUMN v_queue.registered_ts IS NULL;
COMMENT ON COLUMN v_watcher.programs IS NULL;
COMMENT ON COLUMN v_watcher.workers IS NULL;
COMMENT ON COLUMN v_watcher.heartbeat_age IS NULL;
DROP INDEX kr_task_failed;
CREATE OR REPLACE VIEW v_queue AS
SELECT row_number() OVER (ORDER BY r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq) AS position,
       r.task_priority, t.task_id, r.task_flow_id, r.task_exec_seq, flower_title(t.description, t.program) AS title, t.program,
       r.registered_ts
FROM   kr_ready r
JOIN   kr_task_stat t ON t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq;
CREATE OR REPLACE VIEW v_running AS
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
CREATE OR REPLACE VIEW v_flow AS
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
DROP FUNCTION flower_newest();
DROP TRIGGER kr_task_inserted_at_odds ON kr_task_stat;
DROP TRIGGER kr_task_at_odds ON kr_task_stat;
DROP FUNCTION flower_task_at_odds();
DROP TRIGGER kr_task_unowned ON kr_task_stat;
DROP FUNCTION flower_task_unowned();
ALTER TABLE kr_watcher DROP COLUMN running_flow_ids, DROP COLUMN running_exec_seqs;
DROP TABLE kr_unowned, kr_check;
