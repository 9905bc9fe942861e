-- +goose Up

-- What belongs to a workflow as a whole. A workflow needs no row here.
CREATE TABLE ms_workflow (
    task_id           varchar(256) COLLATE "C" PRIMARY KEY CHECK (task_id <> ''),
    description       text,
    max_running_flows integer CHECK (max_running_flows > 0),
    max_running_tasks integer CHECK (max_running_tasks > 0)
);
COMMENT ON TABLE ms_workflow IS 'What belongs to a workflow as a whole, where there is anything to say. Limits may be changed at any time, by hand.';
COMMENT ON COLUMN ms_workflow.task_id IS 'The workflow, as in ms_task_definition.';
COMMENT ON COLUMN ms_workflow.max_running_flows IS
    'How many of its flows may be under way at once: from the start of the first task until nothing of the flow runs or could run. NULL is any number.';
COMMENT ON COLUMN ms_workflow.max_running_tasks IS 'How many tasks of all its flows together may run at once. NULL is any number.';

-- Flows of workflows with max_running_flows that are under way.
CREATE TABLE kr_flow_slot (
    task_id      varchar(256) COLLATE "C" NOT NULL,
    task_flow_id varchar(256) COLLATE "C" NOT NULL,
    PRIMARY KEY (task_id, task_flow_id)
);
COMMENT ON TABLE kr_flow_slot IS 'Kept by Flower: the flows that are under way, of workflows that may have only so many.';

-- The queue holds only what may be claimed, so that what waits for a limit is in nobody's
-- way. It waits in its own row instead: gate says so, and the indexes hold nothing of
-- workflows without a limit.
ALTER TABLE kr_task_stat ADD COLUMN gate smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN kr_task_stat.gate IS
    'Kept by Flower for a workflow with a limit: 1 cannot go yet, 2 could go but for the limit, 3 admitted (in the queue or running). 0: no limit.';
CREATE INDEX kr_task_gate ON kr_task_stat (task_id, gate, task_priority, registered_ts, task_flow_id, task_exec_seq) WHERE gate > 1;
CREATE INDEX kr_task_gate_flow ON kr_task_stat (task_flow_id, gate) WHERE gate > 1;

CREATE FUNCTION flower_limited(workflow varchar) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM ms_workflow w WHERE w.task_id = workflow
               AND (w.max_running_flows IS NOT NULL OR w.max_running_tasks IS NOT NULL));

-- flower_requeue makes the entry of a task in kr_ready, and its gate, what they should be.
-- A task that could go gets no further than the gate: flower_admit opens it. The caller
-- holds the task's lock, and each statement here has a snapshot of its own, taken after
-- that, so that it sees the newest version.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_requeue(flow varchar, seq integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task   record;
    now_at smallint;
BEGIN
    SELECT task_priority, registered_ts, gate, exec_status = 1 AS running, flower_limited(task_id) AS limited,
           exec_status = 0 AND unmet = 0 AND run_after IS NULL AS can_go INTO task
    FROM kr_task_stat WHERE task_flow_id = flow AND task_exec_seq = seq;
    now_at := CASE WHEN NOT task.limited THEN 0
                   WHEN task.running THEN 3
                   WHEN task.can_go IS NOT TRUE THEN 1
                   ELSE greatest(task.gate, 2) END;
    IF now_at <> task.gate THEN
        UPDATE kr_task_stat SET gate = now_at WHERE task_flow_id = flow AND task_exec_seq = seq;
    END IF;
    IF task.can_go AND now_at IN (0, 3) THEN
        INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
        VALUES (task.task_priority, task.registered_ts, flow, seq)
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM kr_ready
        WHERE task_priority = task.task_priority AND registered_ts = task.registered_ts
          AND task_flow_id = flow AND task_exec_seq = seq;
    END IF;
END $$;
-- +goose StatementEnd

-- flower_admit lets tasks of a workflow into the queue, in the order of claims, as far as
-- its limits allow, and returns how many. It is safe to repeat, and everybody may call it
-- after anything that may have made room. One at a time for each workflow: only here do
-- slots become taken, so that nobody else can take one that was counted as free.
-- +goose StatementBegin
CREATE FUNCTION flower_admit(workflow varchar) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    most     record;
    room     integer;
    admitted integer := 0;
BEGIN
    SELECT max_running_flows AS flows, max_running_tasks AS tasks INTO most
    FROM ms_workflow WHERE task_id = workflow FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF most.flows IS NOT NULL THEN
        PERFORM flower_admit_flows(workflow, most.flows);
    END IF;
    LOOP
        room := most.tasks - (SELECT count(*) FROM kr_task_stat WHERE task_id = workflow AND gate = 3);
        admitted := admitted + flower_admit_tasks(workflow, most.flows IS NOT NULL, room);
        EXIT WHEN room IS NULL OR NOT flower_make_way(workflow, most.flows IS NOT NULL, room < 0);
    END LOOP;
    RETURN admitted;
END $$;
-- +goose StatementEnd

-- flower_admit_flows takes back the slots of flows of which nothing runs or could run,
-- and gives them to the flows that come next.
-- +goose StatementBegin
CREATE FUNCTION flower_admit_flows(workflow varchar, most integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    next varchar;
BEGIN
    DELETE FROM kr_flow_slot s
    WHERE s.task_id = workflow
      AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = s.task_flow_id AND t.gate > 1)
      -- a retry that waits for its time keeps its flow's slot
      AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = s.task_flow_id
                      AND (t.exec_status = 1 OR t.exec_status = 0 AND t.unmet = 0));
    FOR i IN 1 .. most - (SELECT count(*) FROM kr_flow_slot WHERE task_id = workflow) LOOP
        SELECT t.task_flow_id INTO next FROM kr_task_stat t
        WHERE t.task_id = workflow AND t.gate = 2
          AND NOT EXISTS (SELECT FROM kr_flow_slot s WHERE s.task_id = workflow AND s.task_flow_id = t.task_flow_id)
        ORDER BY t.task_priority, t.registered_ts, t.task_flow_id, t.task_exec_seq
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        INSERT INTO kr_flow_slot (task_id, task_flow_id) VALUES (workflow, next);
    END LOOP;
END $$;
-- +goose StatementEnd

-- flower_may_go returns tasks that wait for their workflow's limit and whose flow may be
-- under way, in the order of claims: as many as asked for, or all. Those of flows with a
-- slot are found by their flows, however many others wait.
-- +goose StatementBegin
CREATE FUNCTION flower_may_go(workflow varchar, by_flow boolean, most integer) RETURNS SETOF kr_task_stat
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    IF by_flow THEN
        RETURN QUERY
        SELECT t.* FROM kr_flow_slot s JOIN kr_task_stat t ON t.task_flow_id = s.task_flow_id AND t.gate = 2
        WHERE s.task_id = workflow AND t.task_id = workflow
        ORDER BY t.task_priority, t.registered_ts, t.task_flow_id, t.task_exec_seq LIMIT most;
    ELSE
        RETURN QUERY
        SELECT t.* FROM kr_task_stat t WHERE t.task_id = workflow AND t.gate = 2
        ORDER BY t.task_priority, t.registered_ts, t.task_flow_id, t.task_exec_seq LIMIT most;
    END IF;
END $$;
-- +goose StatementEnd

-- flower_admit_tasks opens the gate for as many tasks as there is room for (NULL: for
-- all). A task that somebody has locked is passed over.
-- +goose StatementBegin
CREATE FUNCTION flower_admit_tasks(workflow varchar, by_flow boolean, room integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task     record;
    admitted integer := 0;
BEGIN
    IF room <= 0 THEN
        RETURN 0;
    END IF;
    FOR task IN SELECT task_flow_id AS flow, task_exec_seq AS seq FROM flower_may_go(workflow, by_flow, room + 100) LOOP
        EXIT WHEN admitted = room;
        PERFORM FROM kr_task_stat
        WHERE task_flow_id = task.flow AND task_exec_seq = task.seq AND gate = 2 FOR NO KEY UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE kr_task_stat SET gate = 3 WHERE task_flow_id = task.flow AND task_exec_seq = task.seq AND gate = 2;
        PERFORM flower_requeue(task.flow, task.seq);
        admitted := admitted + 1;
    END LOOP;
    RETURN admitted;
END $$;
-- +goose StatementEnd

-- flower_make_way closes the gate again for the last of the admitted tasks that do not
-- run yet: where there are too many, since the limit was lowered, or where one that waits
-- goes before it.
-- +goose StatementBegin
CREATE FUNCTION flower_make_way(workflow varchar, by_flow boolean, too_many boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    best record;
    last record;
BEGIN
    IF NOT too_many THEN
        SELECT task_priority, registered_ts, task_flow_id, task_exec_seq INTO best FROM flower_may_go(workflow, by_flow, 1);
        -- One that somebody has locked could not take the place.
        PERFORM FROM kr_task_stat
        WHERE task_flow_id = best.task_flow_id AND task_exec_seq = best.task_exec_seq AND gate = 2 FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    SELECT task_priority, registered_ts, task_flow_id, task_exec_seq INTO last FROM kr_task_stat
    WHERE task_id = workflow AND gate = 3 AND exec_status = 0
    ORDER BY task_priority DESC, registered_ts DESC, task_flow_id DESC, task_exec_seq DESC
    LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND OR NOT too_many AND (best.task_priority, best.registered_ts, best.task_flow_id, best.task_exec_seq)
                                   > (last.task_priority, last.registered_ts, last.task_flow_id, last.task_exec_seq) THEN
        RETURN false;
    END IF;
    UPDATE kr_task_stat SET gate = 1 WHERE task_flow_id = last.task_flow_id AND task_exec_seq = last.task_exec_seq;
    PERFORM flower_requeue(last.task_flow_id, last.task_exec_seq);
    RETURN true;
END $$;
-- +goose StatementEnd

-- flower_regate: a workflow got a limit, or lost its last one. What is open of it is read
-- from the whole table: limits change rarely.
-- +goose StatementBegin
CREATE FUNCTION flower_regate(workflow varchar) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    limited boolean := flower_limited(workflow);
BEGIN
    PERFORM FROM kr_task_stat WHERE task_id = workflow AND exec_status IN (0, 1)
    ORDER BY task_flow_id, task_exec_seq FOR NO KEY UPDATE;
    UPDATE kr_task_stat
    SET gate = CASE WHEN NOT limited THEN 0
                    WHEN exec_status = 1 THEN 3
                    WHEN unmet = 0 AND run_after IS NULL THEN 2 ELSE 1 END
    WHERE task_id = workflow AND (exec_status IN (0, 1) OR gate > 1);
    IF limited THEN
        DELETE FROM kr_ready r USING kr_task_stat t
        WHERE t.task_id = workflow AND t.gate = 2 AND r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
          AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq;
    ELSE
        DELETE FROM kr_flow_slot WHERE task_id = workflow;
        INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
        SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat
        WHERE task_id = workflow AND exec_status = 0 AND unmet = 0 AND run_after IS NULL
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
-- +goose StatementEnd

-- flower_workflow_limited: somebody changed a limit.
-- +goose StatementBegin
CREATE FUNCTION flower_workflow_limited() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Only the first limit of a workflow and the loss of its last one concern all its tasks.
    IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.task_id <> NEW.task_id)
       AND coalesce(OLD.max_running_flows, OLD.max_running_tasks) IS NOT NULL THEN
        PERFORM flower_regate(OLD.task_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF (coalesce(NEW.max_running_flows, NEW.max_running_tasks) IS NOT NULL) <>
           (TG_OP = 'UPDATE' AND OLD.task_id = NEW.task_id AND coalesce(OLD.max_running_flows, OLD.max_running_tasks) IS NOT NULL) THEN
            PERFORM flower_regate(NEW.task_id);
        END IF;
        IF NEW.max_running_flows IS NULL THEN
            DELETE FROM kr_flow_slot WHERE task_id = NEW.task_id;
        ELSE
            -- Flows that were under way before keep going.
            INSERT INTO kr_flow_slot (task_id, task_flow_id)
            SELECT DISTINCT NEW.task_id, task_flow_id FROM kr_task_stat WHERE task_id = NEW.task_id AND gate = 3
            ON CONFLICT DO NOTHING;
        END IF;
        PERFORM flower_admit(NEW.task_id);
    END IF;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER ms_workflow_limited AFTER INSERT OR DELETE OR UPDATE OF task_id, max_running_flows, max_running_tasks ON ms_workflow
FOR EACH ROW EXECUTE FUNCTION flower_workflow_limited();

-- The same as before, and the limits.
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

CREATE OR REPLACE VIEW v_invariant AS
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
WHERE  t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
       AND NOT EXISTS (SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
                       AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq)
UNION ALL
SELECT 'only what can go is in the queue', r.task_flow_id, r.task_exec_seq, 'its task cannot go'
FROM   kr_ready r
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
                   AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
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
WHERE  NOT (SELECT t.task_exec_seq = ANY (p.dependents) FROM kr_task_stat p
            WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d)
UNION ALL
SELECT 'the gate is for workflows with a limit', t.task_flow_id, t.task_exec_seq,
       format('gate is %s, exec_status is %s', t.gate, t.exec_status)
FROM   kr_task_stat t
LEFT   JOIN ms_workflow w ON w.task_id = t.task_id AND coalesce(w.max_running_flows, w.max_running_tasks) IS NOT NULL
WHERE  CASE WHEN t.exec_status = 0 AND w.task_id IS NOT NULL
                 THEN CASE WHEN t.unmet = 0 AND t.run_after IS NULL THEN t.gate NOT IN (2, 3) ELSE t.gate <> 1 END
            WHEN t.exec_status = 0 THEN t.gate <> 0
            WHEN t.exec_status <> 1 THEN t.gate > 1 END;

-- +goose Down
DELETE FROM ms_workflow;  -- what waits for a limit goes to the queue
DROP TRIGGER ms_workflow_limited ON ms_workflow;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_requeue(flow varchar, seq integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task record;
BEGIN
    SELECT task_priority, registered_ts, exec_status = 0 AND unmet = 0 AND run_after IS NULL AS ready INTO task
    FROM kr_task_stat WHERE task_flow_id = flow AND task_exec_seq = seq;
    IF task.ready THEN
        INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
        VALUES (task.task_priority, task.registered_ts, flow, seq)
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM kr_ready
        WHERE task_priority = task.task_priority AND registered_ts = task.registered_ts
          AND task_flow_id = flow AND task_exec_seq = seq;
    END IF;
END $$;
-- +goose StatementEnd
CREATE OR REPLACE VIEW v_why_waiting AS
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
COMMENT ON COLUMN v_why_waiting.wait_reason IS 'dependency, blocked (by a suspended task), retry, time (run_after), no_watcher, queued.';
CREATE OR REPLACE VIEW v_invariant AS
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
DROP FUNCTION flower_workflow_limited(), flower_regate(varchar), flower_make_way(varchar, boolean, boolean), flower_admit_tasks(varchar, boolean, integer),
    flower_may_go(varchar, boolean, integer), flower_admit_flows(varchar, integer), flower_admit(varchar), flower_limited(varchar);
ALTER TABLE kr_task_stat DROP COLUMN gate;
DROP TABLE kr_flow_slot, ms_workflow;
