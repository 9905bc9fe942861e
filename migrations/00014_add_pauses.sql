-- +goose Up

-- A program may pause: its task waits at 0 for a time, for the end of another flow or for
-- a call, or at 2 for a person, and no worker is held.
ALTER TABLE kr_task_stat ADD COLUMN pause jsonb;
COMMENT ON COLUMN kr_task_stat.pause IS
    'Kept by Flower while its program pauses: why, what it waits for beside run_after (flow: the end of that flow; callback: a call, with a token whose hash is in callbacks; ask: a person), and what the program wants to find again.';
COMMENT ON COLUMN kr_task_stat.error IS
    'The program''s error, of the last attempt that failed; of a task that was skipped by its condition, that; of one that asks a person, what it asks.';

-- A flow may have been registered by a task of another one.
ALTER TABLE kr_flow
    ADD COLUMN parent_flow_id  varchar(256) COLLATE "C",
    ADD COLUMN parent_exec_seq integer;
COMMENT ON COLUMN kr_flow.parent_flow_id IS 'The flow of the task that registered this one.';
COMMENT ON COLUMN kr_flow.parent_exec_seq IS 'That task.';
CREATE INDEX kr_flow_parent ON kr_flow (parent_flow_id, parent_exec_seq) WHERE parent_flow_id IS NOT NULL;

-- flower_ended says how a flow ended; NULL: it has not. One that waits for a person has
-- not, unless something failed beside that.
CREATE FUNCTION flower_ended(flow varchar) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN count(*) = 0 THEN 'deleted'
                    WHEN bool_or(exec_status = 1 OR exec_status = 0 AND unmet = 0) THEN NULL
                    WHEN bool_or(exec_status = 2 AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')) THEN 'failed'
                    WHEN bool_or(exec_status = 2 AND reason = 'held') THEN NULL
                    WHEN bool_or(exec_status = 2) THEN 'cancelled'
                    WHEN bool_and(exec_status IN (3, 9)) THEN 'finished' END
        FROM kr_task_stat WHERE task_flow_id = flow);

-- flower_task_unpaused: somebody changed exec_status of a task that pauses. What was held
-- goes on where it was, with its idempotency key, since that is no new run; everything else
-- begins anew. Letting a task go on that asks is the answer: who gave it is kept for the
-- program, or is the output of a task that is set to 3.
-- kr_task_edited has done the rest: triggers fire in the order of their names.
-- +goose StatementBegin
CREATE FUNCTION flower_task_unpaused() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held     boolean := OLD.exec_status = 2 AND OLD.reason IS NOT DISTINCT FROM 'held';
    resumed  boolean := held AND NEW.exec_status = 0;
    approval jsonb;
BEGIN
    IF held AND OLD.pause ? 'ask' THEN
        approval := jsonb_strip_nulls(jsonb_build_object('approved_by', session_user, 'at', clock_timestamp(),
                                                         'note', nullif(current_setting('flower.reason', true), '')));
    END IF;
    UPDATE kr_task_stat t
    SET pause = CASE WHEN NEW.exec_status = 2 OR resumed AND approval IS NULL THEN t.pause
                     WHEN resumed THEN t.pause - 'ask' || jsonb_build_object('approval', approval) END,
        attempt_base = CASE WHEN resumed THEN OLD.attempt_base ELSE t.attempt_base END,
        output = CASE WHEN NEW.exec_status = 3 THEN coalesce(t.output, approval) ELSE t.output END
    WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = NEW.task_exec_seq;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- By a person: neither a claim nor the end of an attempt, which takes away the watcher.
CREATE TRIGGER kr_task_unpaused AFTER UPDATE OF exec_status ON kr_task_stat
FOR EACH ROW WHEN (OLD.pause IS NOT NULL AND OLD.exec_status <> NEW.exec_status AND NEW.exec_status <> 1
    AND (OLD.exec_status <> 1 OR NEW.watcher_id IS NOT NULL))
EXECUTE FUNCTION flower_task_unpaused();

-- flower_task_put_forward: somebody changed a time that was still to come: nobody looks at
-- the queue for that before it was meant to.
-- +goose StatementBegin
CREATE FUNCTION flower_task_put_forward() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_task_put_forward AFTER UPDATE OF run_after ON kr_task_stat
FOR EACH ROW WHEN (OLD.exec_status = 0 AND NEW.exec_status = 0 AND OLD.run_after > now() AND NEW.run_after IS DISTINCT FROM OLD.run_after)
EXECUTE FUNCTION flower_task_put_forward();

-- flower_approve lets a task go on that asks.
-- +goose StatementBegin
CREATE FUNCTION flower_approve(flow text, seq integer, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 0
    WHERE  task_flow_id = flow AND task_exec_seq = seq AND exec_status = 2 AND reason = 'held' AND pause ? 'ask';
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION flower_approve(text, integer, text) IS 'Let a task go on that asks a person.';

-- flower_resume undoes flower_hold. It answers nothing that a task asks.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_resume(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat
    SET    exec_status = CASE exec_status WHEN 2 THEN 0 ELSE exec_status END, hold = false
    WHERE  task_flow_id = flow AND (exec_status = 2 AND reason = 'held' AND (pause ? 'ask') IS NOT TRUE OR exec_status = 1 AND hold);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_cancel stops what runs and keeps everything else of the flow from starting: what
-- it asks needs no answer any more, and the flows that its tasks have registered and wait
-- for are cancelled, too.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_cancel(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n     bigint;
    child varchar;
BEGIN
    PERFORM flower_because(why);
    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    SELECT task_flow_id, task_exec_seq, 2, 2, nullif(current_setting('flower.reason', true), '') FROM kr_task_stat
    WHERE  task_flow_id = flow AND exec_status = 2 AND reason = 'held' AND pause ? 'ask';
    UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled', error = why
    WHERE  task_flow_id = flow AND (exec_status IN (0, 1) OR exec_status = 2 AND reason = 'held' AND pause ? 'ask');
    GET DIAGNOSTICS n = ROW_COUNT;
    FOR child IN SELECT k.task_flow_id FROM kr_flow k
                 JOIN   kr_task_stat t ON t.task_flow_id = k.parent_flow_id AND t.task_exec_seq = k.parent_exec_seq
                 WHERE  k.parent_flow_id = flow AND t.exec_status = 2 AND t.reason = 'cancelled'
                 ORDER  BY 1
    LOOP
        n := n + flower_cancel(child, why);
    END LOOP;
    RETURN n;
END $$;
-- +goose StatementEnd

-- The same as before, and what a program waits for.
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
COMMENT ON COLUMN v_why_waiting.wait_reason IS 'dependency, blocked (by a suspended task), retry, time (run_after), flow (that it has registered), callback (by whom it has asked), no_watcher, limit (of its workflow), queued.';

-- A flow whose first task has paused, or waits for its retry, has begun: it is not queued.
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

-- +goose Down
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
CREATE OR REPLACE VIEW v_why_waiting AS
SELECT t.task_flow_id, t.task_exec_seq, t.task_id, flower_title(t.description, t.program) AS title,
       CASE WHEN t.unmet > 0 AND b.stopped IS NOT NULL THEN 'blocked'
            WHEN t.unmet > 0 THEN 'dependency'
            WHEN t.run_after IS NOT NULL AND t.failed_count > 0 THEN 'retry'
            WHEN t.run_after IS NOT NULL THEN 'time'
            WHEN NOT EXISTS (SELECT FROM kr_watcher w WHERE w.lease_until > clock_timestamp() AND NOT w.draining
                             AND t.program = ANY (w.programs)) THEN 'no_watcher'
            WHEN t.gate = 2 THEN 'limit'
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
COMMENT ON COLUMN v_why_waiting.wait_reason IS 'dependency, blocked (by a suspended task), retry, time (run_after), no_watcher, limit (of its workflow), queued.';
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_cancel(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled', error = why
    WHERE  task_flow_id = flow AND exec_status IN (0, 1);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_resume(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat
    SET    exec_status = CASE exec_status WHEN 2 THEN 0 ELSE exec_status END, hold = false
    WHERE  task_flow_id = flow AND (exec_status = 2 AND reason = 'held' OR exec_status = 1 AND hold);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
DROP FUNCTION flower_approve(text, integer, text);
DROP TRIGGER kr_task_put_forward ON kr_task_stat;
DROP TRIGGER kr_task_unpaused ON kr_task_stat;
DROP FUNCTION flower_task_put_forward(), flower_task_unpaused(), flower_ended(varchar);
ALTER TABLE kr_flow DROP COLUMN parent_flow_id, DROP COLUMN parent_exec_seq;
ALTER TABLE kr_task_stat DROP COLUMN pause;
COMMENT ON COLUMN kr_task_stat.error IS 'The program''s error, of the last attempt that failed; of a task that was skipped by its condition, that.';
