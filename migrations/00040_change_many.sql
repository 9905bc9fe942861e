-- +goose Up

-- What people do by hand to many flows at once, or to all.

-- Whoever changed dependencies took a lock for each flow until his transaction ended: with
-- 15,000 flows the server's table of locks was full, for watchers too. Now the locks of rows
-- do, which need no such place: of what a task depends on, and depended on. Only where one of
-- these is not there, so that somebody else may be just inserting it, is the flow locked first.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_relinked() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old_parents integer[] := flower_parents(OLD.depends_task_exec_seq, OLD.depends_task_exec_seqs);
    new_parents integer[] := flower_parents(NEW.depends_task_exec_seq, NEW.depends_task_exec_seqs);
    one         integer;
    missing     boolean;
    alone       boolean := false;  -- in the flow
    tied        boolean := false;
BEGIN
    IF OLD.task_flow_id <> NEW.task_flow_id OR OLD.task_exec_seq <> NEW.task_exec_seq THEN
        RAISE EXCEPTION 'task % of flow %: a task keeps its task_flow_id and task_exec_seq',
                        OLD.task_exec_seq, left(OLD.task_flow_id, 100)
            USING HINT = 'Delete the row and insert it anew.', ERRCODE = 'check_violation';
    END IF;
    -- Once more where one of them was deleted meanwhile: its lock has waited for that.
    LOOP
        missing := EXISTS (SELECT FROM unnest(old_parents || new_parents) p
                           WHERE (SELECT true FROM kr_task_stat t WHERE t.task_flow_id = NEW.task_flow_id AND t.task_exec_seq = p) IS NULL);
        EXIT WHEN tied AND (alone OR NOT missing);
        IF missing THEN
            PERFORM flower_lock_flow(NEW.task_flow_id);
            alone := true;
        END IF;
        FOR one IN SELECT DISTINCT p FROM unnest(old_parents || new_parents) p ORDER BY 1 LOOP
            PERFORM FROM kr_task_stat WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = one FOR NO KEY UPDATE;
        END LOOP;
        FOR one IN SELECT p FROM unnest(old_parents) p WHERE p <> ALL (new_parents) ORDER BY 1 LOOP
            UPDATE kr_task_stat SET dependents = array_remove(dependents, NEW.task_exec_seq)
            WHERE task_flow_id = NEW.task_flow_id AND task_exec_seq = one;
        END LOOP;
        PERFORM flower_recount(NEW.task_flow_id, NEW.task_exec_seq);
        tied := true;
    END LOOP;
    PERFORM pg_notify('flower', '');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- A TRUNCATE is written down, as a DELETE is. How many tasks there were is not known any more.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_truncated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO kr_event (task_flow_id, kind, change, note)
    SELECT min(task_flow_id), 'delete',
           jsonb_build_object('flows', jsonb_build_array(count(*), NULL),
                              'task_id', jsonb_build_array(ARRAY(SELECT DISTINCT task_id FROM kr_flow LIMIT 100), NULL)),
           nullif(current_setting('flower.reason', true), '')
    FROM kr_flow HAVING count(*) > 0;
    TRUNCATE kr_ready, kr_task_attempt, kr_task_log, kr_flow;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- A flow that was deleted and is put back from a copy of its rows, which have what only Flower
-- writes, is of the version that there was when it was registered, not of the present one.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_flow_versioned() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM kr_task_stat WHERE task_flow_id = NEW.task_flow_id AND unmet IS NOT NULL) THEN
        NEW.workflow_version := (SELECT CASE WHEN digest IS NOT NULL THEN version END FROM ms_workflow_version
                                 WHERE task_id = NEW.task_id AND applied_ts <= NEW.registered_ts ORDER BY version DESC LIMIT 1);
    ELSE
        NEW.workflow_version := flower_version(NEW.task_id);
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_flow_versioned() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.workflow_version := flower_version(NEW.task_id);
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_tasks_truncated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE kr_ready, kr_task_attempt, kr_task_log, kr_flow;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_task_relinked() RETURNS trigger
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
