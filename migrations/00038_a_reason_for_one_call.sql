-- +goose Up

-- The reason that a call is given is the reason of that call: it stayed for the rest of the
-- transaction, so that what somebody did next, without one, had it in kr_event and as the
-- error of its tasks.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_operate(action text, scope text, flow text, seq integer, why text, given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    n       bigint;
    refused text[];
    found   boolean;
    before  constant text := coalesce(current_setting('flower.reason', true), '');
BEGIN
    PERFORM flower_because(why);
    SELECT count(*) FILTER (WHERE p.effect = 'change'), array_agg(p.why ORDER BY p.task_exec_seq) FILTER (WHERE p.effect = 'refuse'),
           bool_and(p.code NOT LIKE '%-not-found') IS NOT FALSE
    INTO   n, refused, found
    FROM   flower_act(action, scope, ARRAY[flow], ARRAY[seq], false, given_parameters, given_output) p;
    PERFORM set_config('flower.reason', before, true);
    IF NOT found THEN
        RAISE EXCEPTION '%', rtrim(refused[1], '.') USING ERRCODE = 'no_data_found';
    ELSIF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused[1] || CASE WHEN cardinality(refused) > 1 THEN format(' (And %s more.)', cardinality(refused) - 1) ELSE '' END
            USING ERRCODE = 'check_violation',
                  HINT = format('All of it: SELECT * FROM flower_plan(%s);', concat_ws(', ', quote_literal(action), quote_literal(flow),
                                'scope => ' || quote_literal(scope), 'seq => ' || seq));
    END IF;
    IF n = 0 AND given_parameters <> '{}' THEN
        RAISE NOTICE 'nothing runs again, so no task takes these parameters'
            USING HINT = 'A task that waits takes them by: UPDATE kr_task_stat SET parameters = parameters || ''{…}'' WHERE …';
    END IF;
    RETURN n;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION flower_operate(action text, scope text, flow text, seq integer, why text, given_parameters jsonb DEFAULT NULL, given_output jsonb DEFAULT NULL)
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
    IF n = 0 AND given_parameters <> '{}' THEN
        RAISE NOTICE 'nothing runs again, so no task takes these parameters'
            USING HINT = 'A task that waits takes them by: UPDATE kr_task_stat SET parameters = parameters || ''{…}'' WHERE …';
    END IF;
    RETURN n;
END $$;
-- +goose StatementEnd
