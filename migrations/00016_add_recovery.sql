-- +goose Up

-- Recovery: what operators do to flows and tasks. What an action would do is worked out in
-- one place, flower_planned, for the preview (flower_plan) and for the action (flower_act)
-- alike. People at psql use both by way of the functions at the end of this file, the API
-- and the pages by themselves.

-- flower_actor is who acts. A program that acts for somebody says so for its transaction:
-- set_config('flower.actor', 'alice', true).
CREATE FUNCTION flower_actor() RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('flower.actor', true), ''), session_user);

ALTER TABLE kr_event
    ADD COLUMN kind            text,
    ADD COLUMN way             text NOT NULL DEFAULT 'sql',
    ADD COLUMN login           text,
    ADD COLUMN idempotency_key text;
ALTER TABLE kr_event
    ALTER COLUMN actor           SET DEFAULT flower_actor(),
    ALTER COLUMN kind            SET DEFAULT nullif(current_setting('flower.action', true), ''),
    ALTER COLUMN way             SET DEFAULT CASE WHEN current_setting('flower.way', true) IN ('api', 'ui', 'cli')
                                                  THEN current_setting('flower.way', true) ELSE 'sql' END,
    ALTER COLUMN login           SET DEFAULT session_user,
    ALTER COLUMN idempotency_key SET DEFAULT nullif(current_setting('flower.key', true), '');
COMMENT ON COLUMN kr_event.actor IS 'Who did it: whoever asked the API, else the login of the database.';
COMMENT ON COLUMN kr_event.kind IS 'The action: rerun, cancel, hold, resume, approve, skip, finish; empty if rows were changed by hand.';
COMMENT ON COLUMN kr_event.way IS 'How it was asked for: api, ui, cli or sql.';
COMMENT ON COLUMN kr_event.login IS 'Who was logged in to the database, whatever flower.actor says. Empty in rows that are older than this column: there it is actor.';
COMMENT ON COLUMN kr_event.idempotency_key IS 'Of the request, if it had one.';

-- Whatever rights somebody was given: what is written here stays.
-- +goose StatementBegin
CREATE FUNCTION flower_events_kept() RETURNS trigger
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'MEMBER') THEN
        RAISE EXCEPTION 'kr_event is only ever added to' USING HINT = 'Its owner may delete what is old.', ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER kr_events_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON kr_event
FOR EACH STATEMENT EXECUTE FUNCTION flower_events_kept();

-- A hold of what runs, which changes no status, is written down, too.
-- +goose StatementBegin
CREATE FUNCTION flower_task_held() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, change, note)
    VALUES (NEW.task_flow_id, NEW.task_exec_seq, 1, 1, jsonb_build_object('hold', jsonb_build_array(OLD.hold, NEW.hold)),
            nullif(current_setting('flower.reason', true), ''));
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER kr_task_held AFTER UPDATE OF hold ON kr_task_stat
FOR EACH ROW WHEN (OLD.exec_status = 1 AND NEW.exec_status = 1 AND OLD.hold <> NEW.hold)
EXECUTE FUNCTION flower_task_held();

-- The guard as it was, but that the end of a hold keeps what it had interrupted, and at
-- half the cost for those who write the row as it should be: ten thousand tasks in a second
-- or two.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    owned    boolean := OLD.exec_status = 1 AND OLD.watcher_id IS NOT NULL;
    was_met  boolean := OLD.exec_status IN (3, 9);
    is_met   boolean := NEW.exec_status IN (3, 9);
    -- The end of a hold is no new run: the task goes on with the retries that it has left,
    -- under its idempotency key.
    resumed  boolean := OLD.exec_status = 2 AND OLD.reason IS NOT DISTINCT FROM 'held' AND NEW.exec_status = 0 AND OLD.failed_count < OLD.max_attempts;
    anew     boolean := NEW.exec_status = 0 AND NOT resumed OR was_met AND NOT is_met;
    children integer[];
    child    integer;
    state    smallint;
BEGIN
    IF NEW.exec_status = 1 AND OLD.exec_status <> 1 THEN
        RAISE EXCEPTION 'task % of flow %: only a watcher sets exec_status to 1', NEW.task_exec_seq, left(NEW.task_flow_id, 100)
            USING HINT = 'Set it to 0: a watcher runs the task as soon as what it depends on has finished.',
                  ERRCODE = 'check_violation';
    END IF;
    IF NEW.attempt <> OLD.attempt
       OR (NEW.claim_id IS NOT NULL AND NEW.claim_id IS DISTINCT FROM OLD.claim_id)
       OR (NEW.watcher_id IS NOT NULL AND NEW.watcher_id IS DISTINCT FROM OLD.watcher_id)
       OR NEW.exec_status = OLD.exec_status THEN
        RAISE EXCEPTION 'task % of flow %: attempt, claim_id and watcher_id are kept by Flower', NEW.task_exec_seq, left(NEW.task_flow_id, 100)
            USING HINT = 'To stop a running task set exec_status to 2, to run it again set it to 0.',
                  ERRCODE = 'check_violation';
    END IF;

    IF NEW.exec_status = 0 AND OLD.attempt > 0 THEN
        INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts,
                                     watcher_id, claim_id, reason, error, output)
        VALUES (OLD.task_flow_id, OLD.task_exec_seq, OLD.attempt, OLD.exec_status, OLD.started_ts,
                coalesce(OLD.finished_ts, OLD.suspended_ts, clock_timestamp()),
                OLD.watcher_id, OLD.claim_id, OLD.reason, OLD.error, OLD.output)
        ON CONFLICT DO NOTHING;
    END IF;

    -- Without its claim the superseded attempt can never write again. The program of a
    -- revoked claim is still being stopped: 5 s until the task may start beside it. What is
    -- true already, as flower_act writes it, is not written again.
    IF NEW.exec_status <> 0 OR owned OR NEW.hold OR NEW.run_after <= clock_timestamp()
       OR num_nonnulls(NEW.claim_id, NEW.watcher_id, NEW.started_ts, NEW.finished_ts, NEW.suspended_ts, NEW.reason, NEW.error, NEW.output) > 0
       OR NEW.attempt_base <> NEW.attempt OR NEW.failed_count <> 0 OR NEW.lost_count <> 0 THEN
        UPDATE kr_task_stat t
        SET claim_id = NULL,
            watcher_id = NULL,
            run_after = CASE WHEN owned THEN greatest(t.run_after, clock_timestamp() + interval '5 s')
                             WHEN t.run_after > clock_timestamp() THEN t.run_after END,
            started_ts = CASE WHEN t.exec_status <> 0 THEN t.started_ts END,
            finished_ts = CASE WHEN t.exec_status = 3 THEN clock_timestamp() END,
            suspended_ts = CASE WHEN t.exec_status = 2 THEN clock_timestamp() END,
            reason = CASE WHEN t.exec_status = 2
                          THEN coalesce(t.reason, CASE WHEN OLD.exec_status = 1 THEN 'cancelled' ELSE 'held' END) END,
            error = CASE WHEN t.exec_status <> 0 OR resumed AND NOT coalesce(t.pause ? 'ask', false) THEN t.error END,  -- a task that failed and is skipped keeps its error
            output = CASE WHEN t.exec_status <> 0 THEN t.output END,
            attempt_base = CASE WHEN anew THEN t.attempt ELSE t.attempt_base END,
            failed_count = CASE WHEN anew THEN 0 ELSE t.failed_count END,
            lost_count = CASE WHEN anew THEN 0 ELSE t.lost_count END,
            hold = t.hold AND t.exec_status <> 0
        WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq;
    END IF;

    IF was_met <> is_met THEN
        SELECT t.dependents INTO children FROM kr_task_stat t
        WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq;
        FOR child IN SELECT c FROM unnest(children) c ORDER BY 1 LOOP
            UPDATE kr_task_stat SET unmet = unmet + CASE WHEN is_met THEN -1 ELSE 1 END
            WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = child
            RETURNING exec_status INTO state;  -- of its newest version: a claim may have been waited for
            IF was_met AND state = 1 THEN
                RAISE EXCEPTION 'task % of flow %: task % depends on it and is running', NEW.task_exec_seq, left(NEW.task_flow_id, 100), child
                    USING HINT = format('Wait until task %s has ended, or change it too, in the same UPDATE.', child),
                          ERRCODE = 'check_violation';
            END IF;
            PERFORM flower_requeue(NEW.task_flow_id, child);
        END LOOP;
    END IF;
    PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);

    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    VALUES (NEW.task_flow_id, NEW.task_exec_seq, OLD.exec_status, NEW.exec_status,
            nullif(current_setting('flower.reason', true), ''));
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_requeue(flow varchar, seq integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task   record;
    now_at smallint;
BEGIN
    -- flower_limited, written out: the call would take longer than everything else here.
    SELECT t.task_priority, t.registered_ts, t.gate, t.exec_status = 1 AS running,
           EXISTS (SELECT FROM ms_workflow w WHERE w.task_id = t.task_id
                   AND (w.max_running_flows IS NOT NULL OR w.max_running_tasks IS NOT NULL)) AS limited,
           t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AS can_go INTO task
    FROM kr_task_stat t WHERE t.task_flow_id = flow AND t.task_exec_seq = seq;
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

-- Who approves is whoever asked the API. Otherwise as it was.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_unpaused() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held     boolean := OLD.exec_status = 2 AND OLD.reason IS NOT DISTINCT FROM 'held';
    resumed  boolean := held AND NEW.exec_status = 0;
    approval jsonb;
BEGIN
    IF held AND OLD.pause ? 'ask' THEN
        approval := jsonb_strip_nulls(jsonb_build_object('approved_by', flower_actor(), 'at', clock_timestamp(),
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

-- A row of a plan: a task, with what an action makes of it.
CREATE TYPE flower_planned AS (
    task_flow_id  text,
    task_exec_seq integer,
    title         text,
    attempt       integer,
    old_status    smallint,
    new_status    smallint,
    effect        text,      -- change; follow: it waits already, and comes after one that changes; keep; refuse
    can_go        boolean,   -- it can go at once then, and could not before
    code          text,      -- why it is refused, in a word
    why           text       -- and as a sentence
);

-- flower_check_action refuses what makes no sense, whatever the tasks are.
-- +goose StatementBegin
CREATE FUNCTION flower_check_action(action text, scope text, seqs integer[], given jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    of_task boolean := action IN ('skip', 'finish', 'approve') AND scope IS NULL OR action = 'rerun' AND scope IN ('from', 'only');
BEGIN
    IF (action IN ('rerun', 'cancel', 'hold', 'resume', 'approve', 'skip', 'finish')) IS NOT TRUE THEN
        RAISE EXCEPTION 'action: it is rerun, cancel, hold, resume, approve, skip or finish, and not %', coalesce(left(action, 100), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF action = 'rerun' AND (scope IN ('failed', 'from', 'only', 'all')) IS NOT TRUE THEN
        RAISE EXCEPTION 'scope: it is failed, from, only or all, and not %', coalesce(left(scope, 100), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF action <> 'rerun' AND NOT (scope IS NULL OR action IN ('skip', 'finish') AND scope = 'failed') THEN
        RAISE EXCEPTION 'scope: % has none', action USING ERRCODE = 'invalid_parameter_value';
    ELSIF of_task AND (seqs IS NULL OR array_position(seqs, NULL) IS NOT NULL) THEN
        RAISE EXCEPTION 'seq: % needs a task', concat_ws(' ', action, scope)
            USING HINT = 'It is the task''s task_exec_seq.', ERRCODE = 'invalid_parameter_value';
    ELSIF action = 'rerun' AND scope = 'all' AND cardinality(array_remove(seqs, NULL)) > 0 THEN
        RAISE EXCEPTION 'seq: rerun all is for whole flows'
            USING HINT = 'Leave it out, or say scope => ''from''.', ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(given) <> 'object' THEN
        RAISE EXCEPTION 'parameters: they must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
    ELSIF strpos(given::text, '${{') > 0 THEN
        RAISE EXCEPTION 'parameters: an expression, ${{ … }}, can stand in a definition only, not in a request'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;
-- +goose StatementEnd

-- flower_meant returns the flows and tasks (NULL is the whole flow) that an action is for.
-- A cancel is also for the flows that tasks have registered which it stops.
-- +goose StatementBegin
CREATE FUNCTION flower_meant(action text, flows text[], seqs integer[]) RETURNS TABLE (flow text, seq integer)
LANGUAGE plpgsql STABLE ROWS 1 SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF action <> 'cancel' THEN
        RETURN QUERY SELECT DISTINCT g.f, g.s FROM unnest(flows, seqs) AS g(f, s);
        RETURN;
    END IF;
    RETURN QUERY
    WITH RECURSIVE meant AS (
        SELECT g.f, g.s FROM unnest(flows, seqs) AS g(f, s)
        UNION
        SELECT c.task_flow_id, NULL FROM meant m
        CROSS JOIN LATERAL (
            SELECT k.task_flow_id::text COLLATE "default" AS task_flow_id FROM kr_flow k
            WHERE  k.parent_flow_id = m.f AND (m.s IS NULL OR k.parent_exec_seq = m.s)
                   AND (SELECT t.exec_status IN (0, 1) OR t.exec_status = 2 AND (t.reason = 'cancelled' OR t.reason = 'held' AND t.pause ? 'ask')
                        FROM kr_task_stat t WHERE t.task_flow_id = k.parent_flow_id AND t.task_exec_seq = k.parent_exec_seq)
            OFFSET 0) c
    )
    SELECT m.f, m.s FROM meant m;
END $$;
-- +goose StatementEnd

-- flower_planned works out what an action does. seqs beside flows are the tasks that are
-- meant, NULL is the whole flow; a flow may be there with several tasks. whole asks for
-- tasks that stay as they are, too.
--
-- Its time is linear in the tasks of the flows and their dependencies: each flow is read
-- once, by its key (LATERAL, OFFSET 0), and what was read is never joined by nested loops,
-- as a planner would that expects few rows. It is to expect few (ROWS 1), so that hash tables
-- begin small: most calls are for one flow.
-- +goose StatementBegin
CREATE FUNCTION flower_planned(action text, scope text, flows text[], seqs integer[], whole boolean) RETURNS SETOF flower_planned
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_nestloop = off SET enable_mergejoin = off SET work_mem = '32MB' SET jit = off AS $$
BEGIN
    PERFORM flower_check_action(action, scope, seqs, NULL);
    RETURN QUERY
    WITH RECURSIVE given AS MATERIALIZED (
        SELECT m.flow, m.seq FROM flower_meant(action, flows, seqs) m
    ), asked AS MATERIALIZED (
        SELECT g.flow, bool_or(g.seq IS NULL) AS entire FROM given g GROUP BY 1
    ), reached AS (  -- by a rerun from given tasks
        SELECT g.flow, g.seq FROM given g WHERE action = 'rerun' AND scope = 'from'
        UNION
        SELECT r.flow, d.seq FROM reached r
        CROSS JOIN LATERAL (SELECT unnest(t.dependents) AS seq FROM kr_task_stat t
                            WHERE t.task_flow_id = r.flow AND t.task_exec_seq = r.seq OFFSET 0) d
    ), task AS MATERIALIZED (
        SELECT a.flow, a.entire, t.*,
               a.entire OR g.seq IS NOT NULL AS meant, r.seq IS NOT NULL AS after,
               t.exec_status = 2 AND coalesce(t.reason, 'failed') NOT IN ('held', 'cancelled') AS failed,
               t.exec_status = 2 AND t.reason IS NOT DISTINCT FROM 'held' AS held,
               t.exec_status = 2 AND t.reason IS NOT DISTINCT FROM 'held' AND coalesce(t.pause ? 'ask', false) AS asks
        FROM   asked a
        CROSS  JOIN LATERAL (SELECT s.task_exec_seq, flower_title(s.description, s.program) AS title, s.attempt, s.exec_status, s.reason,
                                    s.pause, s.hold, s.unmet, s.run_after, s.dependents, s.started_ts
                             FROM kr_task_stat s WHERE s.task_flow_id = a.flow OFFSET 0) t
        LEFT   JOIN given g ON g.flow = a.flow AND g.seq = t.task_exec_seq
        LEFT   JOIN reached r ON r.flow = a.flow AND r.seq = t.task_exec_seq
    ), decided AS MATERIALIZED (
        SELECT t.*,
               CASE action
               WHEN 'rerun' THEN CASE WHEN CASE scope
                        WHEN 'failed' THEN t.meant AND t.exec_status = 2 AND NOT t.held
                        WHEN 'only'   THEN t.meant AND t.exec_status IN (2, 3, 9)
                        WHEN 'from'   THEN t.meant AND t.exec_status IN (2, 3, 9)
                                           OR t.after AND (t.exec_status = 2 AND NOT t.held OR t.exec_status = 3)
                        ELSE t.exec_status = 2 AND NOT t.held OR t.exec_status = 3 END THEN 0 END
               WHEN 'cancel'  THEN CASE WHEN t.meant AND (t.exec_status IN (0, 1) OR t.asks) THEN 2 END
               WHEN 'hold'    THEN CASE WHEN t.meant AND t.exec_status IN (0, 1) AND NOT t.hold THEN CASE t.exec_status WHEN 0 THEN 2 ELSE 1 END END
               WHEN 'resume'  THEN CASE WHEN t.meant AND t.held AND NOT t.asks THEN 0 WHEN t.meant AND t.exec_status = 1 AND t.hold THEN 1 END
               WHEN 'approve' THEN CASE WHEN t.meant AND t.asks THEN 0 END
               WHEN 'skip'    THEN CASE WHEN t.meant AND (t.failed OR scope IS NULL AND t.exec_status IN (0, 1, 2)) THEN 9 END
               WHEN 'finish'  THEN CASE WHEN t.meant AND (t.failed OR scope IS NULL AND t.exec_status IN (0, 1, 2, 9)) THEN 3 END
               END::smallint AS to_status,
               CASE WHEN action = 'rerun' AND t.exec_status = 1
                         AND CASE scope WHEN 'failed' THEN false WHEN 'only' THEN t.meant WHEN 'from' THEN t.after ELSE true END THEN 'task-running'
                    WHEN t.meant AND CASE action WHEN 'rerun'   THEN scope IN ('from', 'only') AND t.asks
                                                 WHEN 'approve' THEN NOT t.asks
                                                 WHEN 'skip'    THEN scope IS NULL AND t.exec_status = 3
                                                 WHEN 'resume'  THEN NOT t.entire AND t.exec_status = 2 AND (t.asks OR NOT t.held) END THEN 'wrong-status'
                    END AS refused
        FROM   task t
    ), edge AS MATERIALIZED (  -- from tasks that come to satisfy what depends on them, or cease to
        SELECT d.flow, d.task_exec_seq AS parent, c.seq AS child, CASE WHEN d.to_status IN (3, 9) THEN -1 ELSE 1 END AS more
        FROM   decided d CROSS JOIN LATERAL unnest(d.dependents) AS c(seq)
        WHERE  (d.exec_status IN (3, 9)) <> (d.to_status IN (3, 9))
    ), counted AS MATERIALIZED (
        SELECT e.flow, e.child, sum(e.more) AS more FROM edge e GROUP BY 1, 2
    ), blocked AS MATERIALIZED (
        SELECT e.flow, e.parent, min(e.child) AS child
        FROM   edge e JOIN decided r ON r.flow = e.flow AND r.task_exec_seq = e.child
        WHERE  e.more > 0 AND r.exec_status = 1 AND r.refused IS NULL GROUP BY 1, 2
    ), behind AS (  -- what comes after a task that changes
        SELECT d.flow, c.seq FROM decided d CROSS JOIN LATERAL unnest(d.dependents) AS c(seq)
        WHERE  whole AND d.to_status IN (0, 3, 9)
        UNION
        SELECT b.flow, n.seq FROM behind b
        CROSS JOIN LATERAL (SELECT unnest(t.dependents) AS seq FROM kr_task_stat t
                            WHERE t.task_flow_id = b.flow AND t.task_exec_seq = b.seq OFFSET 0) n
    ), row AS (
        SELECT d.*, b.child, coalesce(d.refused, CASE WHEN b.child IS NOT NULL THEN 'dependant-running' END) AS code,
               d.unmet + coalesce(n.more, 0) AS waits_for, coalesce(n.more, 0) AS more,
               d.exec_status = 0 AND x.seq IS NOT NULL AS follows
        FROM   decided d
        LEFT   JOIN counted n ON n.flow = d.flow AND n.child = d.task_exec_seq
        LEFT   JOIN blocked b ON b.flow = d.flow AND b.parent = d.task_exec_seq
        LEFT   JOIN behind x ON x.flow = d.flow AND x.seq = d.task_exec_seq
    )
    SELECT r.flow, r.task_exec_seq, r.title, r.attempt, r.exec_status, coalesce(r.to_status, r.exec_status),
           CASE WHEN r.code IS NOT NULL THEN 'refuse' WHEN r.to_status IS NOT NULL THEN 'change' WHEN r.follows THEN 'follow' ELSE 'keep' END,
           coalesce(r.to_status, r.exec_status) = 0 AND r.waits_for = 0 AND (r.run_after > clock_timestamp()) IS NOT TRUE
               AND (r.exec_status <> 0 OR r.more < 0),
           r.code,
           CASE r.code
           WHEN 'task-running' THEN format('task %s (%s) of flow %s is running, since %s. Cancel it first, or wait.', r.task_exec_seq, left(r.title, 100),
                                           left(r.flow, 100), to_char(r.started_ts AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
           WHEN 'dependant-running' THEN format('task %s (%s) of flow %s cannot run again: task %s depends on it and is running. Cancel that first, or wait.',
                                                r.task_exec_seq, left(r.title, 100), left(r.flow, 100), r.child)
           WHEN 'wrong-status' THEN format('task %s (%s) of flow %s %s.', r.task_exec_seq, left(r.title, 100), left(r.flow, 100),
                                           CASE WHEN r.asks THEN 'asks a person: approve, skip, finish or cancel it'
                                                WHEN action = 'approve' AND r.pause ? 'approval'
                                                     THEN format('was approved already, by %s', left(r.pause->'approval'->>'approved_by', 100))
                                                WHEN action = 'approve'
                                                     THEN format('asks nobody (%s): there is nothing to approve', CASE r.exec_status WHEN 2 THEN coalesce(r.reason, 'suspended') ELSE flower_status_word(r.exec_status) END)
                                                WHEN action = 'skip' THEN 'has finished: there is nothing to skip'
                                                ELSE format('is not held (%s): rerun it instead', coalesce(r.reason, 'suspended')) END)
           END
    FROM   row r
    WHERE  whole OR r.to_status IS NOT NULL OR r.code IS NOT NULL OR r.more < 0
    UNION ALL
    SELECT g.flow, coalesce(g.seq, 0), NULL, NULL, NULL, NULL, 'refuse', false,
           CASE WHEN f.flow IS NULL THEN 'flow-not-found' ELSE 'task-not-found' END,
           CASE WHEN f.flow IS NULL THEN format('there is no flow %s.', left(g.flow, 100))
                ELSE format('flow %s has no task %s.', left(g.flow, 100), g.seq) END
    FROM   given g
    LEFT   JOIN (SELECT DISTINCT t.flow FROM task t) f ON f.flow = g.flow
    LEFT   JOIN task x ON x.flow = g.flow AND x.task_exec_seq = g.seq
    WHERE  f.flow IS NULL OR g.seq IS NOT NULL AND x.flow IS NULL
    ORDER  BY 1, 2;
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

-- flower_act carries out an action and returns its plan. A flow of which a task is refused
-- is left alone. Everything is locked first, and looked at in a new statement, so that what
-- is planned is what happens. What it does is one UPDATE, which the guard sees like anybody
-- else's.
-- +goose StatementBegin
CREATE FUNCTION flower_act(action text, scope text, flows text[], seqs integer[], whole boolean,
                           given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL) RETURNS SETOF flower_planned
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    planned flower_planned[];
    changes flower_planned[];
    because text := nullif(current_setting('flower.reason', true), '');
    n       bigint;
BEGIN
    PERFORM flower_check_action(action, scope, seqs, given_parameters);
    PERFORM set_config('flower.action', action, true);
    PERFORM flower_lock_tasks(ARRAY(SELECT m.flow FROM flower_meant(action, flows, seqs) m));
    planned := ARRAY(SELECT p FROM flower_planned(action, scope, flows, seqs, whole) p);
    changes := ARRAY(SELECT p FROM unnest(planned) p WHERE p.effect = 'change'
                     AND p.task_flow_id NOT IN (SELECT r.task_flow_id FROM unnest(planned) r WHERE r.effect = 'refuse'));
    IF cardinality(changes) > 100000 THEN
        RAISE EXCEPTION 'these are % tasks, and 100000 may be changed at once', cardinality(changes)
            USING HINT = 'Narrow it down.', ERRCODE = 'program_limit_exceeded';
    END IF;
    CASE action
    WHEN 'rerun' THEN  -- the row as the guard wants it
        UPDATE kr_task_stat t
        SET    exec_status = 0, claim_id = NULL, watcher_id = NULL, run_after = CASE WHEN t.run_after > clock_timestamp() THEN t.run_after END,
               started_ts = NULL, finished_ts = NULL, suspended_ts = NULL, reason = NULL, error = NULL, output = NULL,
               attempt_base = t.attempt, failed_count = 0, lost_count = 0, hold = false
        FROM   unnest(changes) p
        WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq AND t.exec_status = p.old_status;
    WHEN 'cancel' THEN
        UPDATE kr_task_stat t SET exec_status = 2, reason = 'cancelled', error = because
        FROM   unnest(changes) p
        WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq AND t.exec_status = p.old_status;
    WHEN 'hold' THEN
        UPDATE kr_task_stat t SET exec_status = p.new_status, hold = true
        FROM   unnest(changes) p
        WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq AND t.exec_status = p.old_status;
    WHEN 'resume' THEN
        UPDATE kr_task_stat t SET exec_status = p.new_status, hold = false
        FROM   unnest(changes) p
        WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq AND t.exec_status = p.old_status;
    WHEN 'finish' THEN
        UPDATE kr_task_stat t SET exec_status = 3, output = coalesce(given_output, t.output)
        FROM   unnest(changes) p
        WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq AND t.exec_status = p.old_status;
    ELSE  -- approve, skip
        UPDATE kr_task_stat t SET exec_status = p.new_status
        FROM   unnest(changes) p
        WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq AND t.exec_status = p.old_status;
    END CASE;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n <> cardinality(changes) THEN  -- of a flow that came into being after the others were locked
        RAISE EXCEPTION 'tasks have changed meanwhile' USING HINT = 'Try again.', ERRCODE = 'serialization_failure';
    END IF;
    -- An answer that nobody needs any more: no status has changed that the guard would see.
    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    SELECT p.task_flow_id, p.task_exec_seq, 2, 2, because FROM unnest(changes) p WHERE p.old_status = 2 AND p.new_status = 2;
    IF given_parameters <> '{}' THEN
        UPDATE kr_task_stat t SET parameters = t.parameters || given_parameters
        FROM   unnest(changes) p WHERE t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.task_exec_seq;
    END IF;
    PERFORM set_config('flower.action', '', true);  -- what follows in this transaction may be by hand
    RETURN QUERY SELECT * FROM unnest(planned);
END $$;
-- +goose StatementEnd

-- Requests with an idempotency key, and their answers: a repeated one gets the same, and
-- nothing happens twice.
CREATE TABLE kr_request (
    actor           text        NOT NULL,
    idempotency_key text        NOT NULL,
    request_ts      timestamptz NOT NULL DEFAULT now(),
    request         text        NOT NULL,
    answer          jsonb,
    replayed_ts     timestamptz,
    PRIMARY KEY (actor, idempotency_key)
);
CREATE INDEX kr_request_ts ON kr_request (request_ts);
COMMENT ON TABLE kr_request IS 'Kept by Flower: actions that were asked for with an idempotency key, for a week.';
COMMENT ON COLUMN kr_request.request_ts IS 'When it was first made.';
COMMENT ON COLUMN kr_request.answer IS 'What came of it.';
COMMENT ON COLUMN kr_request.request IS 'Hash of what was asked for, to tell a repeated request from another one with the same key.';
COMMENT ON COLUMN kr_request.replayed_ts IS 'When it was last repeated.';

-- For people at psql. Each returns how many tasks it has changed. Where a task is in the
-- way it changes nothing and says why.

-- flower_operate is what they have in common.
-- +goose StatementBegin
CREATE FUNCTION flower_operate(action text, scope text, flow text, seq integer, why text, given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n       bigint;
    refused text[];
    found   boolean;
BEGIN
    PERFORM flower_because(why);
    SELECT count(*) FILTER (WHERE p.effect = 'change'), array_agg(p.why ORDER BY p.task_exec_seq) FILTER (WHERE p.effect = 'refuse'),
           bool_and(p.code NOT LIKE '%-not-found') IS NOT FALSE
    INTO   n, refused, found
    FROM   flower_act(action, scope, ARRAY[flow], ARRAY[seq], false, given_parameters, given_output) p;
    IF NOT found THEN
        RAISE EXCEPTION '%', rtrim(refused[1], '.') USING ERRCODE = 'no_data_found';
    ELSIF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused[1] || CASE WHEN cardinality(refused) > 1 THEN format(' (And %s more.)', cardinality(refused) - 1) ELSE '' END
            USING ERRCODE = 'check_violation',
                  HINT = format('All of it: SELECT * FROM flower_plan(%s);', concat_ws(', ', quote_literal(action), quote_literal(flow),
                                'scope => ' || quote_literal(scope), 'seq => ' || seq));
    END IF;
    RETURN n;
END $$;
-- +goose StatementEnd

-- flower_scope is what a rerun runs again that does not say it.
CREATE FUNCTION flower_scope(action text, scope text, seq integer) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN coalesce(scope, CASE WHEN action <> 'rerun' THEN NULL WHEN seq IS NULL THEN 'failed' ELSE 'from' END);

DROP FUNCTION flower_rerun(text, text), flower_cancel(text, text), flower_hold(text, text), flower_resume(text, text),
    flower_skip(text, integer, text), flower_approve(text, integer, text);

CREATE FUNCTION flower_rerun(flow text, why text DEFAULT NULL, scope text DEFAULT NULL, seq integer DEFAULT NULL, parameters jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('rerun', flower_scope('rerun', scope, seq), flow, seq, why, parameters) $$;
CREATE FUNCTION flower_cancel(flow text, why text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('cancel', NULL, flow, seq, why) $$;
CREATE FUNCTION flower_hold(flow text, why text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('hold', NULL, flow, seq, why) $$;
CREATE FUNCTION flower_resume(flow text, why text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('resume', NULL, flow, seq, why) $$;
CREATE FUNCTION flower_approve(flow text, seq integer, why text DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('approve', NULL, flow, seq, why) $$;
CREATE FUNCTION flower_skip(flow text, seq integer, why text DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('skip', NULL, flow, seq, why) $$;
CREATE FUNCTION flower_finish(flow text, seq integer, output jsonb DEFAULT NULL, why text DEFAULT NULL)
RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT
AS $$ SELECT flower_operate('finish', NULL, flow, seq, why, NULL, output) $$;

COMMENT ON FUNCTION flower_rerun(text, text, text, integer, jsonb) IS
    'Run a flow again: scope => ''failed'' (what failed; the default), ''from'' or ''only'' (the task seq), or ''all''. parameters are merged over those of the tasks.';
COMMENT ON FUNCTION flower_cancel(text, text, integer) IS 'Stop a flow, or its task seq: what runs is cancelled, what waits is suspended.';
COMMENT ON FUNCTION flower_hold(text, text, integer) IS 'Keep a flow''s waiting tasks, or its task seq, from starting; running ones may end.';
COMMENT ON FUNCTION flower_resume(text, text, integer) IS 'Undo flower_hold.';
COMMENT ON FUNCTION flower_approve(text, integer, text) IS
    'Let a task go on that asks a person. What asks nobody is refused. A no is flower_cancel(flow, why, seq).';
COMMENT ON FUNCTION flower_skip(text, integer, text) IS 'Count a task as done without running it: what depends on it can go.';
COMMENT ON FUNCTION flower_finish(text, integer, jsonb, text) IS 'Set a task to finished that was done by hand; output is what it returned.';

-- flower_plan shows what an action would do, and changes nothing.
CREATE FUNCTION flower_plan(action text, flow text, scope text DEFAULT NULL, seq integer DEFAULT NULL)
RETURNS TABLE (task_exec_seq integer, title text, old_status text, new_status text, effect text, can_go boolean, why text, attempt integer, task_flow_id text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT p.task_exec_seq, p.title, flower_status_word(p.old_status), flower_status_word(p.new_status), p.effect, p.can_go, p.why, p.attempt, p.task_flow_id
    FROM   flower_planned(action, flower_scope(action, scope, seq), ARRAY[flow], ARRAY[seq], true) p
    ORDER  BY p.task_flow_id <> flow, p.task_flow_id, p.task_exec_seq
$$;
COMMENT ON FUNCTION flower_plan(text, text, text, integer) IS
    'What an action (rerun, cancel, hold, resume, approve, skip, finish) would do to each task: change; follow (it waits already, and comes after one that changes); keep; refuse (then nothing happens). SELECT * FROM flower_plan(''rerun'', ''…'');';

-- Registration at psql: the same rows as the program register makes. What it refuses it
-- refuses in the same words, but for parameters, which the watcher checks when it runs the
-- task.

-- flower_canonical writes JSON as the hash of a request has it: no blanks, the keys of an
-- object in order.
-- +goose StatementBegin
CREATE FUNCTION flower_canonical(value jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN CASE jsonb_typeof(value)
           WHEN 'object' THEN (SELECT '{' || coalesce(string_agg(flower_canonical(to_jsonb(e.key)) || ':' || flower_canonical(e.value), ',' ORDER BY e.key COLLATE "C"), '') || '}'
                               FROM jsonb_each(value) e)
           WHEN 'array' THEN (SELECT '[' || coalesce(string_agg(flower_canonical(e.value), ',' ORDER BY e.n), '') || ']'
                              FROM jsonb_array_elements(value) WITH ORDINALITY AS e(value, n))
           WHEN 'string' THEN replace(replace(value::text, U&'\2028', '\u2028'), U&'\2029', '\u2029')
           ELSE coalesce(value::text, 'null') END;
END $$;
-- +goose StatementEnd

-- flower_topological returns the places 1 to n of a graph so that each comes after those
-- that it depends on, the smallest possible one first at every step. Places on a cycle, and
-- what depends on them, are missing. The edges go from parents[i] to children[i], in the
-- order of parents. What can come next is in a heap.
-- +goose StatementBegin
CREATE FUNCTION flower_topological(n integer, parents integer[], children integer[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    unmet     integer[] := array_fill(0, ARRAY[n]);
    first     integer[] := array_fill(0, ARRAY[n]);  -- edge of each parent
    heap      integer[] := '{}';
    size      integer := 0;
    sorted    integer[] := '{}';
    next      integer;
    smallest  integer;
    i         integer;
    at        integer;
    smaller   integer;
BEGIN
    FOR i IN REVERSE coalesce(cardinality(parents), 0) .. 1 LOOP
        first[parents[i]] := i;
        unmet[children[i]] := unmet[children[i]] + 1;
    END LOOP;
    FOR place IN 1 .. n LOOP
        IF unmet[place] = 0 THEN
            size := size + 1;
            heap[size] := place;  -- ascending, so that it is a heap
        END IF;
    END LOOP;
    WHILE size > 0 LOOP
        smallest := heap[1];
        sorted := sorted || smallest;
        next := heap[size];
        size := size - 1;
        at := 1;  -- the last one goes to the top, and down
        WHILE 2 * at <= size LOOP
            smaller := 2 * at;
            IF smaller < size AND heap[smaller + 1] < heap[smaller] THEN
                smaller := smaller + 1;
            END IF;
            EXIT WHEN heap[smaller] >= next;
            heap[at] := heap[smaller];
            at := smaller;
        END LOOP;
        heap[at] := next;
        i := first[smallest];
        WHILE i > 0 AND parents[i] = smallest LOOP
            unmet[children[i]] := unmet[children[i]] - 1;
            IF unmet[children[i]] = 0 THEN
                size := size + 1;
                at := size;  -- it goes to the end, and up
                WHILE at > 1 AND heap[at / 2] > children[i] LOOP
                    heap[at] := heap[at / 2];
                    at := at / 2;
                END LOOP;
                heap[at] := children[i];
            END IF;
            i := i + 1;
        END LOOP;
    END LOOP;
    RETURN sorted;
END $$;
-- +goose StatementEnd

-- flower_cycle names the tasks of one cycle, "2 → 4 → 3 → 2": an arrow from a task to one
-- that it depends on. seqs are the task_seqs of the places, sorted is what is on no cycle.
-- +goose StatementBegin
CREATE FUNCTION flower_cycle(seqs integer[], parents integer[], children integer[], sorted integer[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    open  boolean[] := array_fill(true, ARRAY[cardinality(seqs)]);
    above integer[] := array_fill(0, ARRAY[cardinality(seqs)]);  -- the first of what each depends on that is open, too
    been  integer[] := array_fill(0, ARRAY[cardinality(seqs)]);  -- its place in path
    path  integer[] := '{}';
    place integer;
BEGIN
    FOREACH place IN ARRAY sorted LOOP
        open[place] := false;
    END LOOP;
    FOR i IN REVERSE cardinality(parents) .. 1 LOOP
        IF open[parents[i]] THEN
            above[children[i]] := parents[i];
        END IF;
    END LOOP;
    place := array_position(open, true);
    WHILE been[place] = 0 LOOP
        path := path || place;
        been[place] := cardinality(path);
        place := above[place];
    END LOOP;
    path := path[been[place]:] || place;
    RETURN (SELECT string_agg(seqs[p.place]::text, ' → ' ORDER BY p.n) FROM unnest(path[1:12]) WITH ORDINALITY AS p(place, n))
           || CASE WHEN cardinality(path) > 12 THEN format(' → … (%s more)', cardinality(path) - 12) ELSE '' END;
END $$;
-- +goose StatementEnd

-- flower_new_id makes an id of a flow: a UUID of version 7, which begins with the time.
CREATE FUNCTION flower_new_id() RETURNS text
LANGUAGE sql VOLATILE
RETURN (SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
                                              PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
                                      52, 1), 53, 1), 'hex')::uuid::text);

-- flower_milliseconds is an interval as the programs know it.
CREATE FUNCTION flower_milliseconds(i interval) RETURNS interval
LANGUAGE sql IMMUTABLE
RETURN (extract(epoch FROM i) * 1000)::bigint * interval '1 ms';

-- flower_register makes a new flow of a workflow, and returns its id. With a key, the same
-- request gets the same flow, however often it comes, also over HTTP.
-- +goose StatementBegin
CREATE FUNCTION flower_register(task_id text, parameters jsonb DEFAULT NULL, key text DEFAULT NULL, priority integer DEFAULT NULL,
                                note text DEFAULT NULL, registered_by text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_nestloop = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    workflow ALIAS FOR $1;
    given    ALIAS FOR $2;
    urgency  ALIAS FOR $4;
    remark   ALIAS FOR $5;
    whom     ALIAS FOR $6;
    subject  text := format('workflow "%s"', left(workflow, 256));
    defs     ms_task_definition[];
    seqs     integer[];
    parents  integer[];
    children integer[];
    broken   integer;    -- the first place with a dependency that cannot be
    problem  text;
    sorted   integer[];
    numbers  integer[];  -- the task_exec_seq of each place
    hash     text;
    flow     record;
BEGIN
    defs := ARRAY(SELECT d FROM ms_task_definition d WHERE d.task_id = workflow ORDER BY d.task_seq);
    seqs := ARRAY(SELECT d.task_seq FROM unnest(defs) WITH ORDINALITY d ORDER BY d.ordinality);
    IF cardinality(defs) = 0 THEN
        RAISE EXCEPTION '%: no tasks registered', subject USING ERRCODE = 'no_data_found';
    ELSIF cardinality(defs) > 10000 THEN
        RAISE EXCEPTION '%: it has % tasks, and 10000 are allowed', subject, cardinality(defs) USING ERRCODE = 'invalid_parameter_value';
    ELSIF urgency NOT BETWEEN -20 AND 19 THEN
        RAISE EXCEPTION 'priority: it is from -20 to 19, and not %', urgency USING ERRCODE = 'invalid_parameter_value';
    ELSIF key = '' OR length(key) > 200 OR key ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'key: it has 1 to 200 printable characters' USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(given::text) * cardinality(defs)::bigint > 64 << 20 THEN
        RAISE EXCEPTION '%: its % tasks would each get a copy of % bytes of parameters: store them elsewhere and pass where',
                        subject, cardinality(defs), octet_length(given::text) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM flower_check_action('rerun', 'all', NULL, given);

    -- The graph, by the places of the tasks in the order of task_seq.
    WITH task AS MATERIALIZED (
        SELECT d.task_seq, d.depends_task_seqs, d.ordinality::integer AS place FROM unnest(defs) WITH ORDINALITY d
    ), edge AS MATERIALIZED (
        SELECT DISTINCT t.place AS child, p.seq FROM task t CROSS JOIN LATERAL unnest(t.depends_task_seqs) AS p(seq)
        UNION ALL
        SELECT t.place, seqs[t.place - 1] FROM task t WHERE t.depends_task_seqs IS NULL AND t.place > 1
    ), known AS MATERIALIZED (
        SELECT e.child, e.seq, p.place AS parent FROM edge e LEFT JOIN task p ON p.task_seq = e.seq
    )
    SELECT array_agg(k.parent ORDER BY k.parent, k.child), array_agg(k.child ORDER BY k.parent, k.child),
           min(k.child) FILTER (WHERE k.parent IS NULL OR k.parent = k.child) INTO parents, children, broken
    FROM known k;
    IF broken IS NOT NULL THEN
        SELECT CASE WHEN p.seq = seqs[broken] THEN format('task_seq %s depends on itself', p.seq)
                    ELSE format('task_seq %s depends on %s, which does not exist', seqs[broken], p.seq) END INTO problem
        FROM   unnest((defs[broken]).depends_task_seqs) WITH ORDINALITY AS p(seq, n)
        WHERE  p.seq = seqs[broken] OR p.seq <> ALL (seqs) ORDER BY p.n LIMIT 1;
        RAISE EXCEPTION '%: %', subject, problem USING ERRCODE = 'invalid_parameter_value';
    END IF;
    sorted := flower_topological(cardinality(defs), parents, children);
    IF cardinality(sorted) < cardinality(defs) THEN
        RAISE EXCEPTION '%: its dependencies form a cycle: %', subject, flower_cycle(seqs, parents, children, sorted)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    numbers := ARRAY(SELECT s.n::integer FROM unnest(sorted) WITH ORDINALITY AS s(place, n) ORDER BY s.place);

    IF key IS NOT NULL THEN
        hash := encode(sha256(convert_to(flower_canonical(jsonb_build_array(workflow, given, urgency)), 'UTF8')), 'hex');
    END IF;
    INSERT INTO kr_flow (task_flow_id, task_id, registered_by, note, parameters, idempotency_key, fingerprint)
    VALUES (flower_new_id(), workflow, coalesce(nullif(whom, ''), flower_actor()), nullif(remark, ''), given, key, hash)
    ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO UPDATE SET replayed_ts = clock_timestamp()
    RETURNING task_flow_id, fingerprint, replayed_ts INTO flow;
    IF flow.replayed_ts IS NOT NULL THEN
        IF flow.fingerprint IS DISTINCT FROM hash THEN
            RAISE EXCEPTION 'key: the idempotency key was used for a different request' USING ERRCODE = 'unique_violation';
        END IF;
        RETURN flow.task_flow_id;
    END IF;

    WITH above AS MATERIALIZED (
        SELECT e.child AS place, array_agg(numbers[e.parent] ORDER BY numbers[e.parent]) AS parents
        FROM   unnest(parents, children) AS e(parent, child) GROUP BY 1
    ), below AS MATERIALIZED (
        SELECT e.parent AS place, array_agg(numbers[e.child] ORDER BY numbers[e.child]) AS dependents
        FROM   unnest(parents, children) AS e(parent, child) GROUP BY 1
    )
    INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, task_priority, unmet, gate,
        depends_task_exec_seqs, dependents, program, parameters, max_attempts, retry_delay, timeout, on_lost, description, run_if)
    SELECT flow.task_flow_id, numbers[d.ordinality], coalesce(a.parents[1], 0), workflow, d.task_seq, coalesce(urgency, d.task_priority),
           coalesce(cardinality(a.parents), 0),
           CASE WHEN NOT flower_limited(workflow) THEN 0 WHEN a.parents IS NULL THEN 2 ELSE 1 END,
           CASE WHEN cardinality(a.parents) > 1 THEN a.parents END, coalesce(b.dependents, '{}'),
           d.program, d.parameters || coalesce(given, '{}'), d.max_attempts, flower_milliseconds(d.retry_delay),
           nullif(flower_milliseconds(d.timeout), '0 s'), d.on_lost, nullif(d.description, ''), nullif(d.run_if, '')
    FROM   unnest(defs) WITH ORDINALITY d
    LEFT   JOIN above a ON a.place = d.ordinality
    LEFT   JOIN below b ON b.place = d.ordinality
    ORDER  BY 2;
    INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
    SELECT t.task_priority, t.registered_ts, t.task_flow_id, t.task_exec_seq FROM kr_task_stat t
    WHERE  t.task_flow_id = flow.task_flow_id AND t.unmet = 0 AND t.gate = 0;
    PERFORM pg_notify('flower', '');  -- a watcher that wakes up admits what waits for a limit
    RETURN flow.task_flow_id;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION flower_register(text, jsonb, text, integer, text, text) IS
    'Make a new flow of the workflow task_id and return its id. parameters are merged over those of every task; the same key gives the same flow again. SELECT flower_register(''sample'');';

-- +goose Down
DROP FUNCTION flower_register(text, jsonb, text, integer, text, text), flower_milliseconds(interval), flower_new_id(),
    flower_cycle(integer[], integer[], integer[], integer[]), flower_topological(integer, integer[], integer[]), flower_canonical(jsonb);
DROP FUNCTION flower_plan(text, text, text, integer), flower_finish(text, integer, jsonb, text), flower_skip(text, integer, text),
    flower_approve(text, integer, text), flower_resume(text, text, integer), flower_hold(text, text, integer), flower_cancel(text, text, integer),
    flower_rerun(text, text, text, integer, jsonb), flower_scope(text, text, integer),
    flower_operate(text, text, text, integer, text, jsonb, jsonb);
DROP TABLE kr_request;
DROP FUNCTION flower_act(text, text, text[], integer[], boolean, jsonb, jsonb), flower_lock_tasks(text[]),
    flower_planned(text, text, text[], integer[], boolean), flower_meant(text, text[], integer[]),
    flower_check_action(text, text, integer[], jsonb);
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
    WHERE  task_flow_id = flow AND (exec_status = 2 AND reason = 'held' AND (pause ? 'ask') IS NOT TRUE OR exec_status = 1 AND hold);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION flower_cancel(flow text, why text DEFAULT NULL) RETURNS bigint
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
COMMENT ON FUNCTION flower_rerun(text, text) IS 'Run again what failed in a flow, and then what follows. Returns how many tasks were set to 0.';
COMMENT ON FUNCTION flower_hold(text, text) IS 'Keep a flow''s waiting tasks from starting; running ones may end.';
COMMENT ON FUNCTION flower_resume(text, text) IS 'Undo flower_hold.';
COMMENT ON FUNCTION flower_cancel(text, text) IS 'Stop a flow: what runs is cancelled, what waits is suspended.';
COMMENT ON FUNCTION flower_skip(text, integer, text) IS 'Count a task as done without running it.';
COMMENT ON FUNCTION flower_approve(text, integer, text) IS 'Let a task go on that asks a person.';
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_unpaused() RETURNS trigger
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
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_edited() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    task     text := format('task %s of flow %s', NEW.task_exec_seq, left(NEW.task_flow_id, 100));
    owned    boolean := OLD.exec_status = 1 AND OLD.watcher_id IS NOT NULL;
    was_met  boolean := OLD.exec_status IN (3, 9);
    is_met   boolean := NEW.exec_status IN (3, 9);
    children integer[];
    child    integer;
    state    smallint;
BEGIN
    IF NEW.exec_status = 1 AND OLD.exec_status <> 1 THEN
        RAISE EXCEPTION '%: only a watcher sets exec_status to 1', task
            USING HINT = 'Set it to 0: a watcher runs the task as soon as what it depends on has finished.',
                  ERRCODE = 'check_violation';
    END IF;
    IF NEW.attempt <> OLD.attempt
       OR (NEW.claim_id IS NOT NULL AND NEW.claim_id IS DISTINCT FROM OLD.claim_id)
       OR (NEW.watcher_id IS NOT NULL AND NEW.watcher_id IS DISTINCT FROM OLD.watcher_id)
       OR NEW.exec_status = OLD.exec_status THEN
        RAISE EXCEPTION '%: attempt, claim_id and watcher_id are kept by Flower', task
            USING HINT = 'To stop a running task set exec_status to 2, to run it again set it to 0.',
                  ERRCODE = 'check_violation';
    END IF;

    IF NEW.exec_status = 0 AND OLD.attempt > 0 THEN
        INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts,
                                     watcher_id, claim_id, reason, error, output)
        VALUES (OLD.task_flow_id, OLD.task_exec_seq, OLD.attempt, OLD.exec_status, OLD.started_ts,
                coalesce(OLD.finished_ts, OLD.suspended_ts, clock_timestamp()),
                OLD.watcher_id, OLD.claim_id, OLD.reason, OLD.error, OLD.output)
        ON CONFLICT DO NOTHING;
    END IF;

    -- Without its claim the superseded attempt can never write again. The program of a
    -- revoked claim is still being stopped: 5 s until the task may start beside it.
    UPDATE kr_task_stat t
    SET claim_id = NULL,
        watcher_id = NULL,
        run_after = CASE WHEN owned THEN greatest(t.run_after, clock_timestamp() + interval '5 s')
                         WHEN t.run_after > clock_timestamp() THEN t.run_after END,
        started_ts = CASE WHEN t.exec_status <> 0 THEN t.started_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN clock_timestamp() END,
        suspended_ts = CASE WHEN t.exec_status = 2 THEN clock_timestamp() END,
        reason = CASE WHEN t.exec_status = 2
                      THEN coalesce(t.reason, CASE WHEN OLD.exec_status = 1 THEN 'cancelled' ELSE 'held' END) END,
        error = CASE WHEN t.exec_status <> 0 THEN t.error END,  -- a task that failed and is skipped keeps its error
        output = CASE WHEN t.exec_status <> 0 THEN t.output END,
        attempt_base = CASE WHEN t.exec_status = 0 THEN t.attempt ELSE t.attempt_base END,
        failed_count = CASE WHEN t.exec_status = 0 THEN 0 ELSE t.failed_count END,
        lost_count = CASE WHEN t.exec_status = 0 THEN 0 ELSE t.lost_count END,
        hold = t.hold AND t.exec_status <> 0
    WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = NEW.task_exec_seq
    RETURNING t.dependents INTO children;

    IF was_met <> is_met THEN
        FOR child IN SELECT c FROM unnest(children) c ORDER BY 1 LOOP
            UPDATE kr_task_stat SET unmet = unmet + CASE WHEN is_met THEN -1 ELSE 1 END
            WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = child
            RETURNING exec_status INTO state;  -- of its newest version: a claim may have been waited for
            IF was_met AND state = 1 THEN
                RAISE EXCEPTION '%: task % depends on it and is running', task, child
                    USING HINT = format('Wait until task %s has ended, or change it too, in the same UPDATE.', child),
                          ERRCODE = 'check_violation';
            END IF;
            PERFORM flower_requeue(NEW.task_flow_id, child);
        END LOOP;
    END IF;
    PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);

    INSERT INTO kr_event (task_flow_id, task_exec_seq, old_status, new_status, note)
    VALUES (NEW.task_flow_id, NEW.task_exec_seq, OLD.exec_status, NEW.exec_status,
            nullif(current_setting('flower.reason', true), ''));
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd
DROP TRIGGER kr_task_held ON kr_task_stat;
DROP TRIGGER kr_events_kept ON kr_event;
DROP FUNCTION flower_task_held(), flower_events_kept();
ALTER TABLE kr_event
    ALTER COLUMN actor SET DEFAULT session_user,
    DROP COLUMN kind, DROP COLUMN way, DROP COLUMN login, DROP COLUMN idempotency_key;
COMMENT ON COLUMN kr_event.actor IS NULL;
DROP FUNCTION flower_actor();
