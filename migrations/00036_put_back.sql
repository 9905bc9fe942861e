-- +goose Up

-- What came of tasks that were deleted, and put back.

-- A copy of some tasks of a flow that is still there, as after a DELETE that was a mistake,
-- was taken for what the engine or a dump inserts, and left as it was: what these tasks
-- depend on did not know them any more, for ever, so that a rerun "from" passed them over,
-- and what depends on them waited for a sweep.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = auto AS $$
DECLARE
    f        record;
    restored varchar[];
    whole    varchar[] := '{}';  -- flows of which nothing was there before
    others   varchar[];
    many     boolean;
BEGIN
    -- The engine counts what a task waits for, and registers now.
    IF NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL OR registered_ts <> now()) THEN
        RETURN NULL;
    END IF;
    -- What is planned for a few rows would take hours for many. This ends with the function.
    many := (SELECT count(*) > 100 FROM inserted);
    IF many THEN
        PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
    END IF;
    -- A copy of rows that were deleted has everything that Flower keeps in them, but not
    -- their flow; or the flow has other tasks, which do not know them any more. A dump brings
    -- the flow before its rows, and all of these at once.
    restored := ARRAY(SELECT g.flow FROM (SELECT task_flow_id AS flow, count(*) AS tasks FROM inserted
                                          WHERE unmet IS NOT NULL AND registered_ts <> now() GROUP BY 1) g
                      WHERE (EXISTS (SELECT FROM kr_flow k WHERE k.task_flow_id = g.flow)) IS NOT TRUE
                            OR (SELECT count(*) FROM (SELECT FROM kr_task_stat t WHERE t.task_flow_id = g.flow LIMIT g.tasks + 1) t) > g.tasks);
    IF restored = '{}' AND NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL) THEN
        RETURN NULL;
    END IF;
    SELECT task_flow_id, task_exec_seq, attempt INTO f FROM inserted WHERE attempt > 1000000000 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % of flow %: attempt is %, which leaves no room to count', f.task_exec_seq, left(f.task_flow_id, 100), f.attempt
            USING HINT = 'Leave it out: Flower counts attempts from 0.', ERRCODE = 'check_violation';
    END IF;
    -- A lock for each flow; but one for all instead of thousands, which do not fit into
    -- the server's table of locks.
    IF (SELECT count(DISTINCT task_flow_id) FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored))) <= 1000 THEN
        PERFORM flower_lock_flow(task_flow_id)
        FROM (SELECT DISTINCT task_flow_id FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored)) ORDER BY 1) x;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: every flow', 0));
    END IF;

    UPDATE kr_task_stat t
    SET program = d.program, parameters = d.parameters || t.parameters, max_attempts = d.max_attempts,
        retry_delay = d.retry_delay, timeout = d.timeout, on_lost = d.on_lost, run_if = d.run_if,
        description = coalesce(t.description, d.description)
    FROM inserted n
    JOIN ms_task_definition d ON d.task_id = n.task_id AND d.task_seq = n.task_seq
    WHERE (n.unmet IS NULL OR n.task_flow_id = ANY (restored)) AND n.program IS NULL
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    UPDATE kr_task_stat t
    SET started_ts = CASE WHEN t.exec_status = 1 THEN coalesce(t.started_ts, clock_timestamp()) ELSE t.started_ts END,
        suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN coalesce(t.finished_ts, clock_timestamp()) ELSE t.finished_ts END
    FROM inserted n
    WHERE (n.unmet IS NULL OR n.task_flow_id = ANY (restored)) AND n.exec_status IN (1, 2, 3)
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts
    FROM   inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored))
    ORDER  BY task_flow_id, task_exec_seq
    ON CONFLICT DO NOTHING;

    others := ARRAY(SELECT DISTINCT task_flow_id FROM inserted WHERE unmet IS NULL OR task_flow_id = ANY (restored));
    IF many THEN
        SELECT coalesce(array_agg(flow) FILTER (WHERE alone), '{}'), coalesce(array_agg(flow) FILTER (WHERE NOT alone), '{}') INTO whole, others
        FROM (SELECT n.flow, n.tasks = (SELECT count(*) FROM (SELECT FROM kr_task_stat t WHERE t.task_flow_id = n.flow LIMIT n.tasks + 1) t) AS alone
              FROM (SELECT task_flow_id AS flow, count(*) AS tasks FROM inserted WHERE unmet IS NULL OR task_flow_id = ANY (restored) GROUP BY 1) n) f;
        -- Tied all at once. Nobody else sees them yet.
        UPDATE kr_task_stat t
        SET dependents = t.dependents || ARRAY(SELECT c FROM unnest(a.children) c WHERE c <> ALL (t.dependents))
        FROM (SELECT n.task_flow_id, p AS parent, array_agg(DISTINCT n.task_exec_seq) AS children
              FROM inserted n, unnest(flower_parents(n.depends_task_exec_seq, n.depends_task_exec_seqs)) p
              WHERE n.task_flow_id = ANY (whole)
              GROUP BY 1, 2) a
        WHERE t.task_flow_id = a.task_flow_id AND t.task_exec_seq = a.parent AND NOT t.dependents @> a.children;

        UPDATE kr_task_stat t
        SET unmet = u.unmet
        FROM (SELECT task_flow_id, task_exec_seq, flower_unmet(task_flow_id, flower_parents(depends_task_exec_seq, depends_task_exec_seqs)) AS unmet
              FROM inserted WHERE task_flow_id = ANY (whole)) u
        WHERE t.task_flow_id = u.task_flow_id AND t.task_exec_seq = u.task_exec_seq AND t.unmet IS DISTINCT FROM u.unmet;

        INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
        SELECT t.task_priority, t.registered_ts, t.task_flow_id, t.task_exec_seq
        FROM   inserted n
        JOIN   kr_task_stat t ON t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq
        WHERE  n.task_flow_id = ANY (whole) AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND NOT flower_limited(t.task_id)
        ON CONFLICT DO NOTHING;
        PERFORM flower_requeue(task_flow_id, task_exec_seq)
        FROM (SELECT task_flow_id, task_exec_seq FROM inserted
              WHERE task_flow_id = ANY (whole) AND flower_limited(task_id) ORDER BY 1, 2) n;
    END IF;

    FOR f IN SELECT task_flow_id AS flow, array_agg(task_exec_seq ORDER BY task_exec_seq) AS seqs
             FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored)) AND task_flow_id = ANY (others) GROUP BY 1 ORDER BY 1
    LOOP
        PERFORM flower_link(f.flow, f.seqs);
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- Whoever deleted finished tasks of flows that go on was written down as if all of these
-- flows had been over: in one line, with the name of one.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_recorded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NOT EXISTS (SELECT FROM changed WHERE unmet IS NULL OR registered_ts <> now()) THEN
        RETURN NULL;  -- the engine, see flower_tasks_inserted
    END IF;
    INSERT INTO kr_event (task_flow_id, kind, change, note)
    WITH flows AS MATERIALIZED (
        SELECT task_flow_id, min(task_id) AS task_id, count(*) AS tasks,
               bool_and(exec_status IN (3, 9))
               AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = changed.task_flow_id AND t.exec_status NOT IN (3, 9) OFFSET 0) AS over,
               (array_agg(task_exec_seq ORDER BY task_exec_seq))[:100] AS seqs, (array_agg(exec_status ORDER BY task_exec_seq))[:100] AS statuses
        FROM changed GROUP BY task_flow_id
    ), lines AS (
        SELECT task_flow_id, jsonb_build_object('task_id', task_id, 'tasks', tasks, 'task_exec_seq', seqs, 'exec_status', statuses) AS what
        FROM flows WHERE NOT over OR (SELECT count(*) FROM flows WHERE over) = 1
        UNION ALL
        SELECT min(task_flow_id), jsonb_build_object('task_id', (array_agg(DISTINCT task_id))[:100], 'tasks', sum(tasks), 'flows', count(*))
        FROM flows WHERE over HAVING count(*) > 1
    )
    SELECT task_flow_id, lower(TG_OP),
           (SELECT jsonb_object_agg(key, CASE TG_OP WHEN 'DELETE' THEN jsonb_build_array(value, NULL) ELSE jsonb_build_array(NULL, value) END)
            FROM jsonb_each(what)),
           nullif(current_setting('flower.reason', true), '')
    FROM lines ORDER BY task_flow_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- A function with the owner's rights looks at temporary tables last. Otherwise they come
-- before all others: whoever may log in to the database could put one of his own in the place
-- of ours, with a trigger that then had the owner's rights.
-- +goose StatementBegin
DO $$
DECLARE
    here constant text := current_schema();
    one  record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS what FROM pg_proc p
               WHERE p.pronamespace = here::regnamespace AND p.proname ~ '^flower_' AND p.prosecdef
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', one.what, here);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down
ALTER FUNCTION flower_version(varchar) SET search_path FROM CURRENT;
ALTER FUNCTION flower_workflow_changed() SET search_path FROM CURRENT;
ALTER FUNCTION flower_workflow_recorded() SET search_path FROM CURRENT;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_recorded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NOT EXISTS (SELECT FROM changed WHERE unmet IS NULL OR registered_ts <> now()) THEN
        RETURN NULL;  -- the engine, see flower_tasks_inserted
    END IF;
    INSERT INTO kr_event (task_flow_id, kind, change, note)
    WITH flows AS MATERIALIZED (
        SELECT task_flow_id, min(task_id) AS task_id, count(*) AS tasks, bool_and(exec_status IN (3, 9)) AS over,
               (array_agg(task_exec_seq ORDER BY task_exec_seq))[:100] AS seqs, (array_agg(exec_status ORDER BY task_exec_seq))[:100] AS statuses
        FROM changed GROUP BY task_flow_id
    ), lines AS (
        SELECT task_flow_id, jsonb_build_object('task_id', task_id, 'tasks', tasks, 'task_exec_seq', seqs, 'exec_status', statuses) AS what
        FROM flows WHERE NOT over OR (SELECT count(*) FROM flows WHERE over) = 1
        UNION ALL
        SELECT min(task_flow_id), jsonb_build_object('task_id', (array_agg(DISTINCT task_id))[:100], 'tasks', sum(tasks), 'flows', count(*))
        FROM flows WHERE over HAVING count(*) > 1
    )
    SELECT task_flow_id, lower(TG_OP),
           (SELECT jsonb_object_agg(key, CASE TG_OP WHEN 'DELETE' THEN jsonb_build_array(value, NULL) ELSE jsonb_build_array(NULL, value) END)
            FROM jsonb_each(what)),
           nullif(current_setting('flower.reason', true), '')
    FROM lines ORDER BY task_flow_id;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = auto AS $$
DECLARE
    f        record;
    restored varchar[];
    whole    varchar[] := '{}';  -- flows of which nothing was there before
    others   varchar[];
    many     boolean;
BEGIN
    -- The engine counts what a task waits for, and registers now.
    IF NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL OR registered_ts <> now()) THEN
        RETURN NULL;
    END IF;
    -- A copy of rows that were deleted has everything that Flower keeps in them, but not
    -- their flow. A dump brings that before the rows.
    restored := ARRAY(SELECT g.flow FROM (SELECT DISTINCT task_flow_id AS flow FROM inserted WHERE unmet IS NOT NULL AND registered_ts <> now()) g
                      WHERE (EXISTS (SELECT FROM kr_flow k WHERE k.task_flow_id = g.flow)) IS NOT TRUE);
    IF restored = '{}' AND NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL) THEN
        RETURN NULL;
    END IF;
    -- What is planned for a few rows would take hours for many. This ends with the function.
    many := (SELECT count(*) > 100 FROM inserted);
    IF many THEN
        PERFORM set_config('plan_cache_mode', 'force_custom_plan', true);
    END IF;
    SELECT task_flow_id, task_exec_seq, attempt INTO f FROM inserted WHERE attempt > 1000000000 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task % of flow %: attempt is %, which leaves no room to count', f.task_exec_seq, left(f.task_flow_id, 100), f.attempt
            USING HINT = 'Leave it out: Flower counts attempts from 0.', ERRCODE = 'check_violation';
    END IF;
    -- A lock for each flow; but one for all instead of thousands, which do not fit into
    -- the server's table of locks.
    IF (SELECT count(DISTINCT task_flow_id) FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored))) <= 1000 THEN
        PERFORM flower_lock_flow(task_flow_id)
        FROM (SELECT DISTINCT task_flow_id FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored)) ORDER BY 1) x;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: every flow', 0));
    END IF;

    UPDATE kr_task_stat t
    SET program = d.program, parameters = d.parameters || t.parameters, max_attempts = d.max_attempts,
        retry_delay = d.retry_delay, timeout = d.timeout, on_lost = d.on_lost, run_if = d.run_if,
        description = coalesce(t.description, d.description)
    FROM inserted n
    JOIN ms_task_definition d ON d.task_id = n.task_id AND d.task_seq = n.task_seq
    WHERE (n.unmet IS NULL OR n.task_flow_id = ANY (restored)) AND n.program IS NULL
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    UPDATE kr_task_stat t
    SET started_ts = CASE WHEN t.exec_status = 1 THEN coalesce(t.started_ts, clock_timestamp()) ELSE t.started_ts END,
        suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN coalesce(t.finished_ts, clock_timestamp()) ELSE t.finished_ts END
    FROM inserted n
    WHERE (n.unmet IS NULL OR n.task_flow_id = ANY (restored)) AND n.exec_status IN (1, 2, 3)
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts
    FROM   inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored))
    ORDER  BY task_flow_id, task_exec_seq
    ON CONFLICT DO NOTHING;

    others := ARRAY(SELECT DISTINCT task_flow_id FROM inserted WHERE unmet IS NULL OR task_flow_id = ANY (restored));
    IF many THEN
        SELECT coalesce(array_agg(flow) FILTER (WHERE alone), '{}'), coalesce(array_agg(flow) FILTER (WHERE NOT alone), '{}') INTO whole, others
        FROM (SELECT n.flow, n.tasks = (SELECT count(*) FROM (SELECT FROM kr_task_stat t WHERE t.task_flow_id = n.flow LIMIT n.tasks + 1) t) AS alone
              FROM (SELECT task_flow_id AS flow, count(*) AS tasks FROM inserted WHERE unmet IS NULL OR task_flow_id = ANY (restored) GROUP BY 1) n) f;
        -- Tied all at once. Nobody else sees them yet.
        UPDATE kr_task_stat t
        SET dependents = t.dependents || ARRAY(SELECT c FROM unnest(a.children) c WHERE c <> ALL (t.dependents))
        FROM (SELECT n.task_flow_id, p AS parent, array_agg(DISTINCT n.task_exec_seq) AS children
              FROM inserted n, unnest(flower_parents(n.depends_task_exec_seq, n.depends_task_exec_seqs)) p
              WHERE n.task_flow_id = ANY (whole)
              GROUP BY 1, 2) a
        WHERE t.task_flow_id = a.task_flow_id AND t.task_exec_seq = a.parent AND NOT t.dependents @> a.children;

        UPDATE kr_task_stat t
        SET unmet = u.unmet
        FROM (SELECT task_flow_id, task_exec_seq, flower_unmet(task_flow_id, flower_parents(depends_task_exec_seq, depends_task_exec_seqs)) AS unmet
              FROM inserted WHERE task_flow_id = ANY (whole)) u
        WHERE t.task_flow_id = u.task_flow_id AND t.task_exec_seq = u.task_exec_seq AND t.unmet IS DISTINCT FROM u.unmet;

        INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
        SELECT t.task_priority, t.registered_ts, t.task_flow_id, t.task_exec_seq
        FROM   inserted n
        JOIN   kr_task_stat t ON t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq
        WHERE  n.task_flow_id = ANY (whole) AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND NOT flower_limited(t.task_id)
        ON CONFLICT DO NOTHING;
        PERFORM flower_requeue(task_flow_id, task_exec_seq)
        FROM (SELECT task_flow_id, task_exec_seq FROM inserted
              WHERE task_flow_id = ANY (whole) AND flower_limited(task_id) ORDER BY 1, 2) n;
    END IF;

    FOR f IN SELECT task_flow_id AS flow, array_agg(task_exec_seq ORDER BY task_exec_seq) AS seqs
             FROM inserted WHERE (unmet IS NULL OR task_flow_id = ANY (restored)) AND task_flow_id = ANY (others) GROUP BY 1 ORDER BY 1
    LOOP
        PERFORM flower_link(f.flow, f.seqs);
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd
