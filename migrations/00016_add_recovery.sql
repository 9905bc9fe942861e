-- +goose Up

-- Recovery. What an action would do is worked out in one place, flower_planned, for the
-- preview (flower_plan) and for the action (flower_act) alike. Both are read by psql, by
-- way of the functions at the end, and by the API.

-- A row of a plan: a task, with what an action makes of it.
CREATE TYPE flower_planned AS (
    task_flow_id  text,
    task_exec_seq integer,
    title         text,
    attempt       integer,
    old_status    smallint,
    new_status    smallint,
    effect        text,      -- change; follow: waits already, and comes after one that changes; keep; refuse
    can_go        boolean,   -- it can go at once then, and could not before
    code          text,      -- why it is refused, in a word
    why           text       -- and as a sentence
);

-- flower_planned works out what an action does to flows. seqs beside flows are the tasks
-- that are meant, NULL is the whole flow; a flow may be there with several tasks. Rows of
-- tasks that stay as they are come only if whole is asked for.
--
-- The time is linear in the tasks of the flows and their dependencies. Each flow is read
-- by its key (LATERAL, OFFSET 0), and what was read is never joined by nested loops, which
-- is what a planner does that expects few rows.
-- +goose StatementBegin
CREATE FUNCTION flower_planned(action text, scope text, flows text[], seqs integer[], whole boolean) RETURNS SETOF flower_planned
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_nestloop = off SET jit = off AS $$
BEGIN
    PERFORM flower_check_action(action, scope, seqs, NULL);
    RETURN QUERY
    WITH RECURSIVE given AS MATERIALIZED (
        SELECT DISTINCT g.flow, g.seq FROM unnest(flows, seqs) AS g(flow, seq)
    ), asked AS MATERIALIZED (
        SELECT g.flow, bool_or(g.seq IS NULL) AS entire FROM given g GROUP BY 1
    ), reached AS (  -- by a rerun from given tasks
        SELECT g.flow, g.seq FROM given g WHERE action = 'rerun' AND scope = 'from' AND g.seq IS NOT NULL
        UNION
        SELECT r.flow, d.seq FROM reached r
        CROSS JOIN LATERAL (SELECT unnest(t.dependents) AS seq FROM kr_task_stat t
                            WHERE t.task_flow_id = r.flow AND t.task_exec_seq = r.seq OFFSET 0) d
    ), task AS MATERIALIZED (
        SELECT a.flow, a.entire, t.*,
               a.entire OR (a.flow, t.task_exec_seq) IN (SELECT g.flow, g.seq FROM given g WHERE g.seq IS NOT NULL) AS meant,
               (a.flow, t.task_exec_seq) IN (SELECT r.flow, r.seq FROM reached r) AS after,
               t.exec_status = 2 AND coalesce(t.reason, 'failed') NOT IN ('held', 'cancelled') AS failed,
               t.exec_status = 2 AND t.reason IS NOT DISTINCT FROM 'held' AS held
        FROM   asked a
        CROSS  JOIN LATERAL (SELECT s.task_exec_seq, flower_title(s.description, s.program) AS title, s.attempt, s.exec_status, s.reason,
                                    s.hold, s.unmet, s.run_after, s.dependents, s.watcher_id, s.started_ts
                             FROM kr_task_stat s WHERE s.task_flow_id = a.flow OFFSET 0) t
    ), decided AS MATERIALIZED (
        SELECT t.*,
               CASE action
               WHEN 'rerun' THEN
                   CASE scope
                   WHEN 'failed' THEN CASE WHEN t.meant AND t.exec_status = 2 AND NOT t.held THEN 0 END
                   WHEN 'only' THEN CASE WHEN t.meant AND t.exec_status IN (2, 3, 9) THEN 0 END
                   WHEN 'from' THEN CASE WHEN t.meant AND t.exec_status IN (2, 3, 9)
                                           OR t.after AND (t.exec_status = 2 AND NOT t.held OR t.exec_status = 3) THEN 0 END
                   ELSE CASE WHEN t.exec_status = 2 AND NOT t.held OR t.exec_status = 3 THEN 0 END END
               WHEN 'cancel' THEN CASE WHEN t.meant AND t.exec_status IN (0, 1) THEN 2 END
               WHEN 'hold'   THEN CASE WHEN t.meant AND t.exec_status = 0 THEN 2 WHEN t.meant AND t.exec_status = 1 AND NOT t.hold THEN 1 END
               WHEN 'resume' THEN CASE WHEN t.meant AND t.held THEN 0 WHEN t.meant AND t.exec_status = 1 AND t.hold THEN 1 END
               WHEN 'skip'   THEN CASE WHEN t.meant AND (t.failed OR t.exec_status IN (0, 1, 2) AND scope IS NULL) THEN 9 END
               WHEN 'finish' THEN CASE WHEN t.meant AND (t.failed OR t.exec_status IN (0, 1, 2, 9) AND scope IS NULL) THEN 3 END
               END::smallint AS to_status,
               CASE WHEN action = 'rerun' AND t.exec_status = 1
                         AND CASE scope WHEN 'failed' THEN false WHEN 'only' THEN t.meant WHEN 'from' THEN t.after ELSE true END THEN 'task-running'
                    WHEN t.meant AND (action = 'skip' AND t.exec_status = 3 AND scope IS NULL
                                      OR action = 'resume' AND t.exec_status = 2 AND NOT t.held AND NOT t.entire) THEN 'wrong-status' END AS refused
        FROM   task t
    ), edge AS MATERIALIZED (  -- from tasks that come to satisfy what depends on them, or cease to
        SELECT d.flow, d.task_exec_seq AS parent, c.seq AS child, CASE WHEN d.to_status IN (3, 9) THEN -1 ELSE 1 END AS more
        FROM   decided d CROSS JOIN LATERAL unnest(d.dependents) AS c(seq)
        WHERE  d.to_status IS NOT NULL AND (d.exec_status IN (3, 9)) <> (d.to_status IN (3, 9))
    ), counted AS MATERIALIZED (
        SELECT e.flow, e.child, sum(e.more) AS more FROM edge e GROUP BY 1, 2
    ), blocked AS MATERIALIZED (
        SELECT e.flow, e.parent, min(e.child) AS child
        FROM   edge e JOIN decided r ON r.flow = e.flow AND r.task_exec_seq = e.child
        WHERE  e.more > 0 AND r.exec_status = 1 GROUP BY 1, 2
    ), behind AS (  -- what comes after a task that changes
        SELECT d.flow, c.seq FROM decided d CROSS JOIN LATERAL unnest(d.dependents) AS c(seq)
        WHERE  whole AND d.to_status IN (0, 3, 9) AND d.to_status <> d.exec_status
        UNION
        SELECT b.flow, n.seq FROM behind b
        CROSS JOIN LATERAL (SELECT unnest(t.dependents) AS seq FROM kr_task_stat t
                            WHERE t.task_flow_id = b.flow AND t.task_exec_seq = b.seq OFFSET 0) n
    ), row AS (
        SELECT d.*, b.child, coalesce(d.refused, CASE WHEN b.child IS NOT NULL THEN 'dependant-running' END) AS code,
               d.unmet + coalesce(n.more, 0) AS waits_for, coalesce(n.more, 0) AS more,
               d.exec_status = 0 AND (d.flow, d.task_exec_seq) IN (SELECT x.flow, x.seq FROM behind x) AS follows
        FROM   decided d
        LEFT   JOIN counted n ON n.flow = d.flow AND n.child = d.task_exec_seq
        LEFT   JOIN blocked b ON b.flow = d.flow AND b.parent = d.task_exec_seq
    )
    SELECT r.flow, r.task_exec_seq, r.title, r.attempt, r.exec_status, coalesce(r.to_status, r.exec_status),
           CASE WHEN r.code IS NOT NULL THEN 'refuse' WHEN r.to_status IS NOT NULL THEN 'change' WHEN r.follows THEN 'follow' ELSE 'keep' END,
           coalesce(r.to_status, r.exec_status) = 0 AND r.waits_for = 0 AND (r.run_after > clock_timestamp()) IS NOT TRUE
               AND (r.exec_status <> 0 OR r.more < 0),
           r.code,
           CASE r.code
           WHEN 'task-running' THEN format('Task %s (%s) of flow %s is running since %s. Cancel it first, or wait.', r.task_exec_seq, r.title, left(r.flow, 100),
                                           to_char(r.started_ts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
           WHEN 'dependant-running' THEN format('Task %s (%s) of flow %s cannot be run again: task %s depends on it and is running. Cancel that first, or wait.',
                                                r.task_exec_seq, r.title, left(r.flow, 100), r.child)
           WHEN 'wrong-status' THEN format('Task %s (%s) of flow %s is %s: %s.', r.task_exec_seq, r.title, left(r.flow, 100),
                                           CASE WHEN r.exec_status = 2 THEN coalesce(r.reason, 'suspended') ELSE flower_status_word(r.exec_status) END,
                                           CASE action WHEN 'skip' THEN 'there is nothing to skip' ELSE 'it is not held; rerun it instead' END)
           END
    FROM   row r
    WHERE  whole OR r.to_status IS NOT NULL OR r.code IS NOT NULL OR r.more < 0
    UNION ALL
    SELECT g.flow, coalesce(g.seq, 0), NULL, NULL, NULL, NULL, 'refuse', false,
           CASE WHEN x.flow IS NULL THEN 'flow-not-found' ELSE 'task-not-found' END,
           CASE WHEN x.flow IS NULL THEN format('There is no flow %s.', left(g.flow, 100))
                ELSE format('Flow %s has no task %s.', left(g.flow, 100), g.seq) END
    FROM   given g
    LEFT   JOIN (SELECT DISTINCT t.flow FROM task t) x ON x.flow = g.flow
    WHERE  x.flow IS NULL OR g.seq IS NOT NULL AND (g.flow, g.seq) NOT IN (SELECT t.flow, t.task_exec_seq FROM task t)
    ORDER  BY 1, 2;
END $$;
-- +goose StatementEnd

-- flower_check_action refuses what makes no sense as an action, whatever the tasks are.
-- +goose StatementBegin
CREATE FUNCTION flower_check_action(action text, scope text, seqs integer[], given_parameters jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF (action IN ('rerun', 'cancel', 'hold', 'resume', 'skip', 'finish')) IS NOT TRUE THEN
        RAISE EXCEPTION 'action: it is rerun, cancel, hold, resume, skip or finish, and not %', coalesce(left(action, 100), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF action = 'rerun' AND (scope IN ('failed', 'from', 'only', 'all')) IS NOT TRUE THEN
        RAISE EXCEPTION 'scope: it is failed, from, only or all, and not %', coalesce(left(scope, 100), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF action IN ('cancel', 'hold', 'resume') AND scope IS NOT NULL OR action IN ('skip', 'finish') AND scope <> 'failed' THEN
        RAISE EXCEPTION 'scope: a % has none', action USING ERRCODE = 'invalid_parameter_value';
    ELSIF (action IN ('skip', 'finish') AND scope IS NULL OR action = 'rerun' AND scope IN ('from', 'only')) AND coalesce(array_position(seqs, NULL) IS NOT NULL, true) THEN
        RAISE EXCEPTION '%: it needs a task', action || CASE WHEN action = 'rerun' THEN ' ' || scope ELSE '' END
            USING HINT = 'Give its task_exec_seq as seq.', ERRCODE = 'invalid_parameter_value';
    ELSIF action = 'rerun' AND scope = 'all' AND array_length(array_remove(seqs, NULL), 1) > 0 THEN
        RAISE EXCEPTION 'rerun all: it is for a whole flow, not for a task'
            USING HINT = 'Leave seq out, or say scope => ''from''.', ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(given_parameters) <> 'object' THEN
        RAISE EXCEPTION 'parameters: they are a JSON object' USING ERRCODE = 'invalid_parameter_value';
    ELSIF strpos(given_parameters::text, '${{') > 0 THEN
        RAISE EXCEPTION 'parameters: an expression, ${{ … }}, can stand in a definition only, not in a request'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;
-- +goose StatementEnd

-- flower_lock_tasks locks every task of flows, in the order in which everybody locks.
-- +goose StatementBegin
CREATE FUNCTION flower_lock_tasks(flows text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    flow text;
BEGIN
    FOR flow IN SELECT DISTINCT f COLLATE "C" FROM unnest(flows) f ORDER BY 1 LOOP
        PERFORM FROM kr_task_stat t WHERE t.task_flow_id = flow ORDER BY t.task_exec_seq FOR NO KEY UPDATE;
    END LOOP;
END $$;
-- +goose StatementEnd

-- flower_act carries out an action, and returns its plan. A flow in which something is
-- refused is left alone. Every task of the flows is locked first, in the order in which
-- everybody locks, and looked at in a new statement: what is planned is what happens.
-- +goose StatementBegin
CREATE FUNCTION flower_act(action text, scope text, flows text[], seqs integer[], whole boolean,
                           given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL) RETURNS SETOF flower_planned
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    planned flower_planned[];
    changes flower_planned[];
    n       bigint;
BEGIN
    PERFORM flower_check_action(action, scope, seqs, given_parameters);
    PERFORM set_config('flower.action', action, true);
    PERFORM flower_lock_tasks(flows);
    planned := ARRAY(SELECT p FROM flower_planned(action, scope, flows, seqs, whole) p);
    changes := ARRAY(SELECT p FROM unnest(planned) p WHERE p.effect = 'change'
                     AND p.task_flow_id NOT IN (SELECT r.task_flow_id FROM unnest(planned) r WHERE r.effect = 'refuse'));
    IF cardinality(changes) > 100000 THEN
        RAISE EXCEPTION 'these are % tasks, and 100,000 may be changed at once', cardinality(changes)
            USING HINT = 'Narrow it down.', ERRCODE = 'program_limit_exceeded';
    END IF;
    CASE action
    WHEN 'rerun' THEN
        IF given_parameters IS NULL THEN
            UPDATE kr_task_stat t SET exec_status = 0 FROM unnest(changes) p
            WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
        ELSE
            UPDATE kr_task_stat t SET exec_status = 0, parameters = t.parameters || given_parameters FROM unnest(changes) p
            WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
        END IF;
    WHEN 'cancel' THEN
        UPDATE kr_task_stat t SET exec_status = 2, reason = 'cancelled', error = nullif(current_setting('flower.reason', true), '')
        FROM unnest(changes) p WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
    WHEN 'hold' THEN
        UPDATE kr_task_stat t SET exec_status = p.new_status, hold = true
        FROM unnest(changes) p WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
    WHEN 'resume' THEN
        UPDATE kr_task_stat t SET exec_status = p.new_status, hold = false
        FROM unnest(changes) p WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
    WHEN 'skip' THEN
        UPDATE kr_task_stat t SET exec_status = 9
        FROM unnest(changes) p WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
    WHEN 'finish' THEN
        UPDATE kr_task_stat t SET exec_status = 3, output = coalesce(given_output, t.output)
        FROM unnest(changes) p WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
    END CASE;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n <> cardinality(changes) THEN
        RAISE EXCEPTION 'tasks were deleted meanwhile' USING HINT = 'Try again.', ERRCODE = 'serialization_failure';
    END IF;
    -- What else this transaction does is something else. (SET in the function's head would
    -- do it, too, but only a superuser may write that.)
    PERFORM set_config('flower.action', '', true);
    RETURN QUERY SELECT * FROM unnest(planned);
END $$;
-- +goose StatementEnd

-- Who acted, and how. A program that acts for somebody says so for its transaction:
-- set_config('flower.actor', 'alice', true). login is who was logged in, whatever was said.
ALTER TABLE kr_event
    ADD COLUMN kind            text,
    ADD COLUMN way             text NOT NULL DEFAULT 'sql',
    ADD COLUMN login           text,
    ADD COLUMN idempotency_key text,
    ALTER COLUMN actor           SET DEFAULT coalesce(nullif(current_setting('flower.actor', true), ''), session_user),
    ALTER COLUMN kind            SET DEFAULT nullif(current_setting('flower.action', true), ''),
    ALTER COLUMN way             SET DEFAULT CASE WHEN current_setting('flower.way', true) IN ('api', 'ui', 'cli')
                                                  THEN current_setting('flower.way', true) ELSE 'sql' END,
    ALTER COLUMN login           SET DEFAULT session_user,
    ALTER COLUMN idempotency_key SET DEFAULT nullif(current_setting('flower.key', true), '');
COMMENT ON COLUMN kr_event.actor IS 'Who did it: the principal of the API, else the login.';
COMMENT ON COLUMN kr_event.kind IS 'What it was: rerun, cancel, hold, resume, skip, finish; empty if rows were changed by hand.';
COMMENT ON COLUMN kr_event.way IS 'How it was done: api, ui, cli, or sql.';
COMMENT ON COLUMN kr_event.login IS 'The role that was logged in to the database. Empty in rows of older versions, where it is the actor.';
COMMENT ON COLUMN kr_event.idempotency_key IS 'Of the request, if it had one.';

-- Requests that had an idempotency key, with their answers: a repeated one gets the same,
-- and nothing happens twice.
CREATE TABLE kr_request (
    actor           text        NOT NULL,
    idempotency_key text        NOT NULL,
    request_ts      timestamptz NOT NULL DEFAULT now(),
    request         text        NOT NULL,
    answer          jsonb,
    replayed_ts     timestamptz,
    PRIMARY KEY (actor, idempotency_key)
);
COMMENT ON TABLE kr_request IS 'Kept by Flower: actions that were asked for with an idempotency key, for a week.';
COMMENT ON COLUMN kr_request.request IS 'Hash of what was asked for, to tell a repeated request from another one with the same key.';
COMMENT ON COLUMN kr_request.replayed_ts IS 'When it was last repeated.';

-- What is there for psql. Each returns how many tasks it changed, and changes nothing
-- where a task is in the way.

-- flower_operate is what they have in common.
-- +goose StatementBegin
CREATE FUNCTION flower_operate(action text, flow text, why text, scope text, seq integer, given_parameters jsonb, given_output jsonb)
RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n       bigint;
    refused text[];
    found   boolean;
BEGIN
    PERFORM flower_because(why);
    SELECT count(*) FILTER (WHERE p.effect = 'change'), array_agg(p.why ORDER BY p.task_exec_seq) FILTER (WHERE p.effect = 'refuse'),
           count(*) FILTER (WHERE p.code IN ('flow-not-found', 'task-not-found')) = 0
    INTO   n, refused, found
    FROM   flower_act(action, scope, ARRAY[flow], ARRAY[seq], false, given_parameters, given_output) p;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused[1] || CASE WHEN cardinality(refused) > 1 THEN format(' (and %s more)', cardinality(refused) - 1) ELSE '' END
            USING ERRCODE = CASE WHEN found THEN 'check_violation' ELSE 'no_data_found' END,
                  HINT = format('To see why: SELECT * FROM flower_plan(%L, %L%s);', action, flow, concat(', ' || quote_literal(scope), ', seq => ' || seq));
    END IF;
    RETURN n;
END $$;
-- +goose StatementEnd

DROP FUNCTION flower_rerun(text, text), flower_cancel(text, text), flower_hold(text, text), flower_resume(text, text), flower_skip(text, integer, text);

CREATE FUNCTION flower_rerun(flow text, why text DEFAULT NULL, scope text DEFAULT NULL, seq integer DEFAULT NULL, parameters jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('rerun', flow, why, coalesce(scope, CASE WHEN seq IS NULL THEN 'failed' ELSE 'from' END), seq, parameters, NULL) $$;
CREATE FUNCTION flower_cancel(flow text, why text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('cancel', flow, why, NULL, seq, NULL, NULL) $$;
CREATE FUNCTION flower_hold(flow text, why text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('hold', flow, why, NULL, seq, NULL, NULL) $$;
CREATE FUNCTION flower_resume(flow text, why text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('resume', flow, why, NULL, seq, NULL, NULL) $$;
CREATE FUNCTION flower_skip(flow text, seq integer, why text DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('skip', flow, why, NULL, seq, NULL, NULL) $$;
CREATE FUNCTION flower_finish(flow text, seq integer, output jsonb DEFAULT NULL, why text DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('finish', flow, why, NULL, seq, NULL, output) $$;

COMMENT ON FUNCTION flower_rerun(text, text, text, integer, jsonb) IS
    'Run a flow again, with scope => failed (what failed; the default), from or only (seq => the task), or all. parameters are merged over those of the tasks.';
COMMENT ON FUNCTION flower_cancel(text, text, integer) IS 'Stop a flow, or the task seq: what runs is cancelled, what waits is suspended.';
COMMENT ON FUNCTION flower_hold(text, text, integer) IS 'Keep a flow''s waiting tasks, or the task seq, from starting; running ones may end.';
COMMENT ON FUNCTION flower_resume(text, text, integer) IS 'Undo flower_hold.';
COMMENT ON FUNCTION flower_skip(text, integer, text) IS 'Count a task as done without running it: what depends on it can go.';
COMMENT ON FUNCTION flower_finish(text, integer, jsonb, text) IS 'Set a task to finished, since it was done by hand; output is what it returned.';

-- flower_plan shows what an action would do, and changes nothing.
CREATE FUNCTION flower_plan(action text, flow text, scope text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS TABLE (task_exec_seq integer, title text, old_status text, new_status text, effect text, can_go boolean, why text, attempt integer)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT p.task_exec_seq, p.title, flower_status_word(p.old_status), flower_status_word(p.new_status), p.effect, p.can_go, p.why, p.attempt
    FROM   flower_planned(action, coalesce(scope, CASE WHEN action <> 'rerun' THEN NULL WHEN seq IS NULL THEN 'failed' ELSE 'from' END),
                          ARRAY[flow], ARRAY[seq], true) p
    ORDER  BY 1
$$;
COMMENT ON FUNCTION flower_plan(text, text, text, integer) IS
    'What an action (rerun, cancel, hold, resume, skip, finish) would do to each task of a flow: change; follow (it waits already, and comes after one that changes); keep; refuse (then nothing happens). SELECT * FROM flower_plan(''rerun'', ''…'');';

-- +goose Down
DROP FUNCTION flower_plan(text, text, text, integer), flower_finish(text, integer, jsonb, text), flower_skip(text, integer, text),
    flower_resume(text, text, integer), flower_hold(text, text, integer), flower_cancel(text, text, integer),
    flower_rerun(text, text, text, integer, jsonb), flower_operate(text, text, text, text, integer, jsonb, jsonb);
DROP TABLE kr_request;
ALTER TABLE kr_event
    ALTER COLUMN actor SET DEFAULT session_user,
    DROP COLUMN kind, DROP COLUMN way, DROP COLUMN login, DROP COLUMN idempotency_key;
COMMENT ON COLUMN kr_event.actor IS NULL;
DROP FUNCTION flower_act(text, text, text[], integer[], boolean, jsonb, jsonb), flower_lock_tasks(text[]),
    flower_check_action(text, text, integer[], jsonb), flower_planned(text, text, text[], integer[], boolean);
DROP TYPE flower_planned;
-- +goose StatementBegin
CREATE FUNCTION flower_rerun(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 0
    WHERE  task_flow_id = flow AND exec_status = 2 AND reason IS DISTINCT FROM 'held';
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION flower_hold(flow text, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat
    SET    exec_status = CASE exec_status WHEN 0 THEN 2 ELSE exec_status END, hold = true
    WHERE  task_flow_id = flow AND exec_status IN (0, 1) AND NOT hold;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION flower_resume(flow text, why text DEFAULT NULL) RETURNS bigint
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
-- +goose StatementBegin
CREATE FUNCTION flower_cancel(flow text, why text DEFAULT NULL) RETURNS bigint
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
CREATE FUNCTION flower_skip(flow text, seq integer, why text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n bigint;
BEGIN
    PERFORM flower_because(why);
    UPDATE kr_task_stat SET exec_status = 9
    WHERE  task_flow_id = flow AND task_exec_seq = seq AND exec_status IN (0, 1, 2);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION flower_rerun(text, text) IS 'Run again what failed in a flow, and then what follows. Returns how many tasks were set to 0.';
COMMENT ON FUNCTION flower_hold(text, text) IS 'Keep a flow''s waiting tasks from starting; running ones may end.';
COMMENT ON FUNCTION flower_resume(text, text) IS 'Undo flower_hold.';
COMMENT ON FUNCTION flower_cancel(text, text) IS 'Stop a flow: what runs is cancelled, what waits is suspended.';
COMMENT ON FUNCTION flower_skip(text, integer, text) IS 'Count a task as done without running it.';
