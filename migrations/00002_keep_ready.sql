-- +goose Up

-- These triggers keep kr_task_stat and kr_ready right under whatever a person does by
-- hand, and refuse what must not be done. The engine's own statements pay for none of
-- them: they are AFTER row triggers whose WHEN knows the engine by the shape of its
-- changes (BEFORE triggers would lock each row first), and the statement triggers fire
-- on INSERT and DELETE only.
--
-- Everybody locks in one order: a task before its dependents, dependents in the order
-- of task_exec_seq, a task before its entry in kr_ready.

-- flower_parents returns what a task depends on, as written: it may have duplicates.
CREATE FUNCTION flower_parents(one integer, many integer[]) RETURNS integer[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN many IS NOT NULL THEN many WHEN one > 0 THEN ARRAY[one] ELSE '{}' END;

-- The functions below look at one task at a time, by its key: with a list of tasks the
-- planner may read the whole flow for each call, and a flow of n tasks then costs n * n.

-- flower_requeue makes the entry of a task in kr_ready what it should be. The caller
-- holds the task's lock, and each statement here has a snapshot of its own, taken after
-- that, so that it sees the newest version.
-- +goose StatementBegin
CREATE FUNCTION flower_requeue(flow varchar, seq integer) RETURNS void
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

-- flower_unmet counts what is not satisfied of the tasks that a task depends on.
CREATE FUNCTION flower_unmet(flow varchar, parents integer[]) RETURNS integer
LANGUAGE sql STABLE
RETURN (SELECT count(DISTINCT d) FROM unnest(parents) d
        WHERE ((SELECT p.exec_status FROM kr_task_stat p WHERE p.task_flow_id = flow AND p.task_exec_seq = d) IN (3, 9)) IS NOT TRUE);

-- flower_recount counts again what a task waits for, from nothing but the truth. It locks
-- what the task depends on and the task itself, and looks in a new statement.
-- +goose StatementBegin
CREATE FUNCTION flower_recount(flow varchar, seq integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    parents integer[];
    one     integer;
BEGIN
    SELECT flower_parents(depends_task_exec_seq, depends_task_exec_seqs) INTO parents
    FROM kr_task_stat WHERE task_flow_id = flow AND task_exec_seq = seq;
    FOR one IN SELECT DISTINCT p FROM unnest(parents || seq) p ORDER BY 1 LOOP
        PERFORM FROM kr_task_stat WHERE task_flow_id = flow AND task_exec_seq = one FOR NO KEY UPDATE;
    END LOOP;

    -- Once more: the lock may have waited for somebody who changed it.
    SELECT flower_parents(depends_task_exec_seq, depends_task_exec_seqs) INTO parents
    FROM kr_task_stat WHERE task_flow_id = flow AND task_exec_seq = seq;
    FOR one IN SELECT DISTINCT p FROM unnest(parents) p ORDER BY 1 LOOP
        UPDATE kr_task_stat SET dependents = dependents || seq
        WHERE task_flow_id = flow AND task_exec_seq = one AND NOT seq = ANY (dependents);
    END LOOP;
    UPDATE kr_task_stat SET unmet = flower_unmet(flow, parents)
    WHERE task_flow_id = flow AND task_exec_seq = seq;
    PERFORM flower_requeue(flow, seq);
END $$;
-- +goose StatementEnd

-- flower_lock_flow makes those who tie tasks of a flow together wait for each other: of
-- two who insert a task and what it depends on at once, neither would see the other's.
-- +goose StatementBegin
CREATE FUNCTION flower_lock_flow(flow varchar) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('flower: every flow', 0));
    PERFORM pg_advisory_xact_lock(hashtextextended('flower ' || flow, 0));
END $$;
-- +goose StatementEnd

-- flower_task_edited: somebody changed exec_status by hand. It refuses what only the
-- engine may do, makes the row true (times, reason, claim), keeps the superseded
-- attempt, releases or blocks what depends on the task, and writes down who did it.
-- +goose StatementBegin
CREATE FUNCTION flower_task_edited() RETURNS trigger
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

-- The engine's changes, which this trigger lets past, are: a claim, the end of an
-- attempt, and the row made true by flower_task_edited itself. IS NOT TRUE, since a
-- NULL in a comparison must not make a change by hand look like the engine's.
CREATE TRIGGER kr_task_edited AFTER UPDATE OF exec_status, attempt, claim_id, watcher_id ON kr_task_stat
FOR EACH ROW WHEN (
    (OLD.exec_status <> NEW.exec_status OR OLD.attempt <> NEW.attempt
     OR OLD.claim_id IS DISTINCT FROM NEW.claim_id OR OLD.watcher_id IS DISTINCT FROM NEW.watcher_id)
    AND (OLD.exec_status = 0 AND NEW.exec_status = 1 AND NEW.unmet = 0 AND NEW.attempt = OLD.attempt + 1
         AND NEW.watcher_id IS NOT NULL AND NEW.claim_id IS NOT NULL
         AND NEW.claim_id IS DISTINCT FROM OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = 1 AND NEW.exec_status IN (0, 2, 3) AND NEW.attempt = OLD.attempt
         AND OLD.watcher_id IS NOT NULL AND NEW.watcher_id IS NULL AND NEW.claim_id = OLD.claim_id) IS NOT TRUE
    AND (OLD.exec_status = NEW.exec_status AND NEW.exec_status <> 1 AND NEW.attempt = OLD.attempt
         AND NEW.claim_id IS NULL AND NEW.watcher_id IS NULL) IS NOT TRUE)
EXECUTE FUNCTION flower_task_edited();

-- flower_task_requeued: the task's place in kr_ready may have changed, by whoever: it
-- waits again after an attempt, its time has come or was put off, its priority changed.
-- +goose StatementBegin
CREATE FUNCTION flower_task_requeued() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.task_priority <> NEW.task_priority OR OLD.registered_ts <> NEW.registered_ts THEN
        DELETE FROM kr_ready
        WHERE task_priority = OLD.task_priority AND registered_ts = OLD.registered_ts
          AND task_flow_id = OLD.task_flow_id AND task_exec_seq = OLD.task_exec_seq;
    END IF;
    PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_task_requeued AFTER UPDATE OF exec_status, run_after, task_priority, registered_ts ON kr_task_stat
FOR EACH ROW WHEN (NEW.exec_status = 0 AND (OLD.exec_status = 1 OR OLD.run_after IS DISTINCT FROM NEW.run_after)
    OR OLD.task_priority <> NEW.task_priority OR OLD.registered_ts <> NEW.registered_ts)
EXECUTE FUNCTION flower_task_requeued();

-- flower_task_relinked: somebody changed what a task depends on.
-- +goose StatementBegin
CREATE FUNCTION flower_task_relinked() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old_parents integer[] := flower_parents(OLD.depends_task_exec_seq, OLD.depends_task_exec_seqs);
    new_parents integer[] := flower_parents(NEW.depends_task_exec_seq, NEW.depends_task_exec_seqs);
    one         integer;
BEGIN
    IF OLD.task_flow_id <> NEW.task_flow_id OR OLD.task_exec_seq <> NEW.task_exec_seq THEN
        RAISE EXCEPTION 'task % of flow %: a task keeps its task_flow_id and task_exec_seq',
                        OLD.task_exec_seq, left(OLD.task_flow_id, 100)
            USING HINT = 'Delete the row and insert it anew.', ERRCODE = 'check_violation';
    END IF;
    PERFORM flower_lock_flow(NEW.task_flow_id);
    FOR one IN SELECT p FROM unnest(old_parents) p WHERE p <> ALL (new_parents) ORDER BY 1 LOOP
        UPDATE kr_task_stat SET dependents = array_remove(dependents, NEW.task_exec_seq)
        WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = one;
    END LOOP;
    PERFORM flower_recount(NEW.task_flow_id, NEW.task_exec_seq);
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_task_relinked
AFTER UPDATE OF task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs ON kr_task_stat
FOR EACH ROW WHEN (OLD.task_flow_id <> NEW.task_flow_id OR OLD.task_exec_seq <> NEW.task_exec_seq
    OR OLD.depends_task_exec_seq <> NEW.depends_task_exec_seq
    OR OLD.depends_task_exec_seqs IS DISTINCT FROM NEW.depends_task_exec_seqs)
EXECUTE FUNCTION flower_task_relinked();

-- flower_task_reworded: somebody changed how a task runs; it counts from its next
-- attempt on. Only written down.
-- +goose StatementBegin
CREATE FUNCTION flower_task_reworded() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO kr_event (task_flow_id, task_exec_seq, change, note)
    SELECT NEW.task_flow_id, NEW.task_exec_seq, jsonb_object_agg(o.key, jsonb_build_array(o.value, n.value)),
           nullif(current_setting('flower.reason', true), '')
    FROM jsonb_each(to_jsonb(OLD)) o
    JOIN jsonb_each(to_jsonb(NEW)) n ON n.key = o.key AND n.value IS DISTINCT FROM o.value
    WHERE o.key IN ('program', 'parameters', 'task_priority', 'max_attempts', 'retry_delay', 'timeout', 'on_lost')
    HAVING count(*) > 0;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_task_reworded
AFTER UPDATE OF program, parameters, task_priority, max_attempts, retry_delay, timeout, on_lost ON kr_task_stat
FOR EACH ROW WHEN (OLD.unmet IS NOT NULL)
EXECUTE FUNCTION flower_task_reworded();

-- flower_tasks_inserted: rows put in by hand, in any order and any state, know neither
-- their program nor their neighbours. The engine's own rows bring everything with them,
-- unmet too, and are left alone.
-- +goose StatementBegin
CREATE FUNCTION flower_tasks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f record;
BEGIN
    IF NOT EXISTS (SELECT FROM inserted WHERE unmet IS NULL) THEN
        RETURN NULL;
    END IF;
    -- A lock for each flow; but one for all instead of thousands, which do not fit into
    -- the server's table of locks.
    IF (SELECT count(DISTINCT task_flow_id) FROM inserted WHERE unmet IS NULL) <= 1000 THEN
        PERFORM flower_lock_flow(task_flow_id)
        FROM (SELECT DISTINCT task_flow_id FROM inserted WHERE unmet IS NULL ORDER BY 1) x;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('flower: every flow', 0));
    END IF;

    UPDATE kr_task_stat t
    SET program = d.program, parameters = d.parameters || t.parameters, max_attempts = d.max_attempts,
        retry_delay = d.retry_delay, timeout = d.timeout, on_lost = d.on_lost,
        description = coalesce(t.description, d.description)
    FROM inserted n
    JOIN ms_task_definition d ON d.task_id = n.task_id AND d.task_seq = n.task_seq
    WHERE n.unmet IS NULL AND n.program IS NULL
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    UPDATE kr_task_stat t
    SET suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END,
        finished_ts = CASE WHEN t.exec_status = 3 THEN coalesce(t.finished_ts, clock_timestamp()) ELSE t.finished_ts END
    FROM inserted n
    WHERE n.unmet IS NULL AND n.exec_status IN (2, 3)
      AND t.task_flow_id = n.task_flow_id AND t.task_exec_seq = n.task_exec_seq;

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts
    FROM   inserted WHERE unmet IS NULL
    ORDER  BY task_flow_id, task_exec_seq
    ON CONFLICT DO NOTHING;

    FOR f IN SELECT task_flow_id AS flow, array_agg(task_exec_seq ORDER BY task_exec_seq) AS seqs
             FROM inserted WHERE unmet IS NULL GROUP BY 1 ORDER BY 1
    LOOP
        PERFORM flower_link(f.flow, f.seqs);
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- flower_link ties new rows of a flow to the others, in both directions. Planned anew at
-- each call: a plan that was made for a few rows would take hours for thousands.
-- +goose StatementBegin
CREATE FUNCTION flower_link(flow varchar, seqs integer[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    parents  integer[];
    children integer[];
BEGIN
    -- What they depend on is locked, so that a finish in flight is waited for, and looked
    -- at in the next statements.
    parents := ARRAY(SELECT DISTINCT p
                     FROM kr_task_stat t, unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) p
                     WHERE t.task_flow_id = flow AND t.task_exec_seq = ANY (seqs));
    PERFORM FROM kr_task_stat
    WHERE task_flow_id = flow AND task_exec_seq = ANY (parents)
    ORDER BY task_exec_seq FOR NO KEY UPDATE;

    -- What was there first and depends on them: nothing but a look at the whole flow tells.
    children := ARRAY(SELECT task_exec_seq
                      FROM kr_task_stat
                      WHERE task_flow_id = flow AND task_exec_seq <> ALL (seqs)
                        AND (depends_task_exec_seq = ANY (seqs) OR depends_task_exec_seqs && seqs));

    UPDATE kr_task_stat t
    SET dependents = t.dependents || ARRAY(SELECT c FROM unnest(a.children) c WHERE c <> ALL (t.dependents))
    FROM (SELECT p AS parent, array_agg(DISTINCT c.task_exec_seq) AS children
          FROM kr_task_stat c, unnest(flower_parents(c.depends_task_exec_seq, c.depends_task_exec_seqs)) p
          WHERE c.task_flow_id = flow AND c.task_exec_seq = ANY (seqs || children)
                AND (c.task_exec_seq = ANY (seqs) OR p = ANY (seqs))
          GROUP BY p) a
    WHERE t.task_flow_id = flow AND t.task_exec_seq = a.parent;

    UPDATE kr_task_stat t
    SET unmet = flower_unmet(flow, flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)),
        suspended_ts = CASE WHEN t.exec_status = 2 THEN coalesce(t.suspended_ts, clock_timestamp()) ELSE t.suspended_ts END
    WHERE t.task_flow_id = flow AND t.task_exec_seq = ANY (seqs);

    -- A task that was there first has counted its missing parent as unmet. Relatively,
    -- since another of its parents may be finishing at this moment.
    UPDATE kr_task_stat t SET unmet = t.unmet - met.n
    FROM (SELECT c.task_exec_seq AS child, count(DISTINCT p.task_exec_seq) AS n
          FROM kr_task_stat c
          CROSS JOIN unnest(flower_parents(c.depends_task_exec_seq, c.depends_task_exec_seqs)) d
          JOIN kr_task_stat p ON p.task_flow_id = flow AND p.task_exec_seq = d
          WHERE c.task_flow_id = flow AND c.task_exec_seq = ANY (children)
                AND p.task_exec_seq = ANY (seqs) AND p.exec_status IN (3, 9)
          GROUP BY 1) met
    WHERE t.task_flow_id = flow AND t.task_exec_seq = met.child;
    PERFORM flower_requeue(flow, seq) FROM unnest(seqs || children) seq;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_tasks_inserted AFTER INSERT ON kr_task_stat
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION flower_tasks_inserted();

-- flower_tasks_deleted: what depended on a deleted task waits for it from now on, since
-- half of a flow must not run as if it were whole.
-- +goose StatementBegin
CREATE FUNCTION flower_tasks_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    f record;
BEGIN
    DELETE FROM kr_ready r USING deleted d
    WHERE r.task_priority = d.task_priority AND r.registered_ts = d.registered_ts
      AND r.task_flow_id = d.task_flow_id AND r.task_exec_seq = d.task_exec_seq;
    DELETE FROM kr_task_attempt a USING deleted d
    WHERE a.task_flow_id = d.task_flow_id AND a.task_exec_seq = d.task_exec_seq;

    UPDATE kr_task_stat t
    SET dependents = ARRAY(SELECT c FROM unnest(t.dependents) c WHERE c <> ALL (gone.children))
    FROM (SELECT d.task_flow_id, p AS parent, array_agg(d.task_exec_seq) AS children
          FROM deleted d, unnest(flower_parents(d.depends_task_exec_seq, d.depends_task_exec_seqs)) p
          GROUP BY 1, 2) gone
    WHERE t.task_flow_id = gone.task_flow_id AND t.task_exec_seq = gone.parent;

    FOR f IN WITH orphan AS (
                 SELECT d.task_flow_id, c AS seq, count(*) AS n
                 FROM deleted d, unnest(d.dependents) c
                 WHERE d.exec_status IN (3, 9) GROUP BY 1, 2
             ), updated AS (
                 UPDATE kr_task_stat t SET unmet = t.unmet + o.n
                 FROM orphan o WHERE t.task_flow_id = o.task_flow_id AND t.task_exec_seq = o.seq
                 RETURNING t.task_flow_id, t.task_exec_seq
             )
             SELECT task_flow_id AS flow, task_exec_seq AS seq FROM updated
    LOOP
        PERFORM flower_requeue(f.flow, f.seq);
    END LOOP;

    DELETE FROM kr_flow k USING (SELECT DISTINCT task_flow_id FROM deleted) d
    WHERE k.task_flow_id = d.task_flow_id
      AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_tasks_deleted AFTER DELETE ON kr_task_stat
REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION flower_tasks_deleted();

-- +goose StatementBegin
CREATE FUNCTION flower_tasks_truncated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE kr_ready, kr_task_attempt, kr_flow;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_tasks_truncated AFTER TRUNCATE ON kr_task_stat
FOR EACH STATEMENT EXECUTE FUNCTION flower_tasks_truncated();

-- +goose Down
DROP TRIGGER kr_tasks_truncated ON kr_task_stat;
DROP TRIGGER kr_tasks_deleted ON kr_task_stat;
DROP TRIGGER kr_tasks_inserted ON kr_task_stat;
DROP TRIGGER kr_task_reworded ON kr_task_stat;
DROP TRIGGER kr_task_relinked ON kr_task_stat;
DROP TRIGGER kr_task_requeued ON kr_task_stat;
DROP TRIGGER kr_task_edited ON kr_task_stat;
DROP FUNCTION flower_tasks_truncated(), flower_tasks_deleted(), flower_tasks_inserted(), flower_task_reworded(),
    flower_task_relinked(), flower_task_requeued(), flower_task_edited(), flower_link(varchar, integer[]),
    flower_lock_flow(varchar), flower_recount(varchar, integer), flower_unmet(varchar, integer[]),
    flower_requeue(varchar, integer), flower_parents(integer, integer[]);
