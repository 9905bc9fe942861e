-- +goose Up

-- A flow says which version of its definition it was made of. The trigger that gives the
-- number to rows by hand looked once more, and so may have seen a later one than what
-- flower_register had read. Otherwise as it was.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_register(task_id text, parameters jsonb DEFAULT NULL, key text DEFAULT NULL, priority integer DEFAULT NULL,
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
    version  integer;
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
    -- What this transaction has changed gets its number first. Then one statement reads the
    -- rows and the number: somebody may change both the moment after.
    PERFORM flower_version(workflow);
    SELECT ARRAY(SELECT d FROM ms_task_definition d WHERE d.task_id = workflow ORDER BY d.task_seq),
           (SELECT v.version FROM ms_workflow_version v WHERE v.task_id = workflow ORDER BY v.version DESC LIMIT 1) INTO defs, version;
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
    INSERT INTO kr_flow (task_flow_id, task_id, registered_by, note, parameters, idempotency_key, fingerprint, workflow_version)
    VALUES (flower_new_id(), workflow, coalesce(nullif(whom, ''), flower_actor()), nullif(remark, ''), given, key, hash, version)
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

-- What somebody has written into a definition, a password perhaps, stays in its old
-- versions until they are deleted. The last one stays: it is the present definition, and the
-- next one is counted from it.
-- +goose StatementBegin
CREATE FUNCTION flower_version_kept() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'the last version of a workflow is its present definition, and stays'
            USING HINT = 'DELETE FROM ms_workflow_version deletes the others.', ERRCODE = 'check_violation';
    END IF;
    IF OLD.version = (SELECT max(v.version) FROM ms_workflow_version v WHERE v.task_id = OLD.task_id) THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ms_workflow_version_kept BEFORE DELETE ON ms_workflow_version
FOR EACH ROW EXECUTE FUNCTION flower_version_kept();
CREATE TRIGGER ms_workflow_versions_kept BEFORE TRUNCATE ON ms_workflow_version
FOR EACH STATEMENT EXECUTE FUNCTION flower_version_kept();
COMMENT ON TABLE ms_workflow_version IS
    'Kept by Flower: every definition that a workflow has had, changes by hand included. The highest version is the present one. Older ones may be deleted at any time.';

-- +goose Down
COMMENT ON TABLE ms_workflow_version IS 'Kept by Flower: every definition that a workflow has had, changes by hand included. The highest version is the present one.';
DROP TRIGGER ms_workflow_versions_kept ON ms_workflow_version;
DROP TRIGGER ms_workflow_version_kept ON ms_workflow_version;
DROP FUNCTION flower_version_kept();
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_register(task_id text, parameters jsonb DEFAULT NULL, key text DEFAULT NULL, priority integer DEFAULT NULL,
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
