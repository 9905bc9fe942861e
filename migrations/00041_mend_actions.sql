-- +goose Up

-- A cancel is for what is held, too: a flow that somebody had held, to look first, could be
-- resumed only, and began meanwhile. So it is for the flow that a held task has registered.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_meant(action text, flows text[], seqs integer[]) RETURNS TABLE (flow text, seq integer)
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
                   AND (SELECT t.exec_status IN (0, 1) OR t.exec_status = 2 AND t.reason IN ('cancelled', 'held')
                        FROM kr_task_stat t WHERE t.task_flow_id = k.parent_flow_id AND t.task_exec_seq = k.parent_exec_seq)
            OFFSET 0) c
    )
    SELECT m.f, m.s FROM meant m;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_planned(action text, scope text, flows text[], seqs integer[], whole boolean) RETURNS SETOF flower_planned
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
               WHEN 'cancel'  THEN CASE WHEN t.meant AND (t.exec_status IN (0, 1) OR t.held) THEN 2 END
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
COMMENT ON FUNCTION flower_cancel(text, text, integer) IS 'Stop a flow, or its task seq: what runs is cancelled, what waits is suspended, and what is held is cancelled, too.';

-- What the request gave is of the whole flow: a rerun that gives it anew gives it to the tasks
-- that have yet to run, too. They took the old value, the wrong day, and nobody was told.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_act(action text, scope text, flows text[], seqs integer[], whole boolean,
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
        UPDATE kr_task_stat t SET parameters = t.parameters || r.anew  -- of those that have not begun
        FROM   (SELECT f.task_flow_id, jsonb_object_agg(g.key, g.value) AS anew
                FROM   kr_flow f JOIN jsonb_each(given_parameters) g ON f.parameters ? g.key
                WHERE  scope <> 'only' AND f.task_flow_id IN (SELECT p.task_flow_id FROM unnest(changes) p) GROUP BY 1) r
        WHERE  t.task_flow_id = r.task_flow_id AND t.pause IS NULL AND (t.exec_status = 0 OR t.exec_status = 2 AND t.reason = 'held')
               AND t.parameters <> t.parameters || r.anew;
    END IF;
    PERFORM set_config('flower.action', '', true);  -- what follows in this transaction may be by hand
    RETURN QUERY SELECT * FROM unnest(planned);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION flower_rerun(text, text, text, integer, jsonb) IS
    'Run a flow again: scope => ''failed'' (what failed; the default), ''from'' or ''only'' (the task seq), or ''all''. parameters are merged over those of the tasks; those that the request gave, also of tasks that have yet to run.';

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_meant(action text, flows text[], seqs integer[]) RETURNS TABLE (flow text, seq integer)
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

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_planned(action text, scope text, flows text[], seqs integer[], whole boolean) RETURNS SETOF flower_planned
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
COMMENT ON FUNCTION flower_cancel(text, text, integer) IS 'Stop a flow, or its task seq: what runs is cancelled, what waits is suspended.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_act(action text, scope text, flows text[], seqs integer[], whole boolean,
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
COMMENT ON FUNCTION flower_rerun(text, text, text, integer, jsonb) IS
    'Run a flow again: scope => ''failed'' (what failed; the default), ''from'' or ''only'' (the task seq), or ''all''. parameters are merged over those of the tasks.';
