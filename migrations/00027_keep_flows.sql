-- +goose Up

-- A flow is listed by its row in kr_flow, and that may be deleted by hand, for what it says
-- of who registered it and why. The flow is still there while it has tasks: it then stands
-- as one whose rows were inserted by hand, but that it keeps which task has registered it, and
-- its version. One of which that is not known must not be given the present one.

INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
SELECT DISTINCT ON (t.task_flow_id) t.task_flow_id, t.task_id, t.registered_ts FROM kr_task_stat t
WHERE  NOT EXISTS (SELECT FROM kr_flow k WHERE k.task_flow_id = t.task_flow_id)
ORDER  BY t.task_flow_id, t.task_exec_seq
ON     CONFLICT DO NOTHING;

-- flower_flows_gone puts back the rows of flows that have tasks. In order: others may do the
-- same. When tasks are deleted, none are left of the flows whose rows go with them.
-- +goose StatementBegin
CREATE FUNCTION flower_flows_gone() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
        SELECT DISTINCT ON (task_flow_id) task_flow_id, task_id, registered_ts FROM kr_task_stat ORDER BY task_flow_id, task_exec_seq
        ON CONFLICT DO NOTHING;
        UPDATE kr_flow SET workflow_version = NULL;
    ELSE
        INSERT INTO kr_flow (task_flow_id, task_id, registered_ts, parent_flow_id, parent_exec_seq, workflow_version)
        SELECT t.task_flow_id, t.task_id, t.registered_ts, g.parent_flow_id, g.parent_exec_seq, g.workflow_version FROM gone g
        CROSS  JOIN LATERAL (SELECT s.task_flow_id, s.task_id, s.registered_ts FROM kr_task_stat s
                             WHERE s.task_flow_id = g.task_flow_id ORDER BY s.task_exec_seq LIMIT 1) t
        ORDER  BY 1
        ON CONFLICT DO NOTHING;
        -- By the key of each: a plan for many, which stays, would read the whole table for one.
        UPDATE kr_flow SET workflow_version = NULL
        WHERE  task_flow_id = ANY (ARRAY(SELECT g.task_flow_id FROM gone g WHERE g.workflow_version IS NULL)) AND workflow_version IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER kr_flows_deleted AFTER DELETE ON kr_flow
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION flower_flows_gone();
CREATE TRIGGER kr_flows_truncated AFTER TRUNCATE ON kr_flow
FOR EACH STATEMENT EXECUTE FUNCTION flower_flows_gone();

-- Rows that somebody has copied with the columns that are Flower's, from a backup perhaps,
-- pass by the trigger that makes the row of their flow; a sweep finds them if they wait.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_recount(flow varchar, seq integer) RETURNS void
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

    INSERT INTO kr_flow (task_flow_id, task_id, registered_ts)
    SELECT t.task_flow_id, t.task_id, t.registered_ts FROM kr_task_stat t
    WHERE  t.task_flow_id = flow AND t.task_exec_seq = seq AND NOT EXISTS (SELECT FROM kr_flow k WHERE k.task_flow_id = flow)
    ON CONFLICT DO NOTHING;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_recount(flow varchar, seq integer) RETURNS void
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
DROP TRIGGER kr_flows_truncated ON kr_flow;
DROP TRIGGER kr_flows_deleted ON kr_flow;
DROP FUNCTION flower_flows_gone();
