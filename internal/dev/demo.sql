-- What `make demo` puts into a database of its own: workflows, and two hundred flows of the
-- last days as if they had run here. {site} is register. A line "-- then" ends a transaction.

SELECT set_config('flower.reason', 'the first version', true), set_config('flower.actor', 'carol', true);

INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs, description) VALUES
    ('nightly', 1, 'EchoParamTimeSleep', -5, '{"SLEEP_TIME_SECOND": 50}', '{}', 'extract_orders'),
    ('nightly', 2, 'EchoParamTimeSleep', -5, '{"SLEEP_TIME_SECOND": 31}', '{}', 'extract_customers'),
    ('nightly', 3, 'HTTPPostRequest', -5, '{"URL": "{site}/register/warehouse", "BODY": {"note": "after nightly"}}', '{1,2}', 'load_orders'),
    ('nightly', 4, 'EchoParamTimeSleep', -5, '{"SLEEP_TIME_SECOND": 38}', '{3}', 'build_mart');

INSERT INTO ms_task_definition (task_id, task_seq, program, parameters, depends_task_seqs, description, max_attempts, retry_delay, timeout) VALUES
    ('warehouse', 1, 'NoOp', '{}', '{}', 'begin', 1, '10 s', NULL),
    ('warehouse', 2, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 16}', '{1}', 'load orders', 1, '10 s', NULL),
    ('warehouse', 3, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 11}', '{1}', 'load customers', 1, '10 s', NULL),
    ('warehouse', 4, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 27}', '{1}', 'load stock', 1, '10 s', NULL),
    ('warehouse', 5, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 2}', '{2,3}', 'join orders and customers', 1, '10 s', NULL),
    ('warehouse', 6, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 1}', '{4,5}', 'refresh the views', 1, '10 s', NULL),

    ('billing', 1, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 4}', NULL, 'collect usage', 1, '10 s', NULL),
    ('billing', 2, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 6}', NULL, E'write invoices\nOne for each customer; those of a run that stopped are kept.', 1, '10 s', '30 s'),
    ('billing', 3, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 2}', NULL, 'send them', 1, '10 s', NULL),

    ('reports', 1, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 1}', '{}', 'prepare', 1, '10 s', NULL),
    ('reports', 2, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 42}', '{1}', 'report for the north', 2, '5 s', NULL),
    ('reports', 3, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 31}', '{1}', 'report for the south', 2, '5 s', NULL),
    ('reports', 4, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 36}', '{1}', 'report for the east', 2, '5 s', NULL),
    ('reports', 5, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 25}', '{1}', 'report for the west', 2, '5 s', NULL),
    ('reports', 6, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 2}', '{2,3,4,5}', 'put them together', 1, '10 s', NULL),

    ('sync-crm', 1, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 2}', NULL, 'fetch contacts', 1, '10 s', NULL),
    ('sync-crm', 2, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 20}', NULL, 'push contacts', 2, '15 s', '4 s'),

    ('imports', 1, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": 45}', NULL, 'read the file', 1, '10 s', NULL),
    ('imports', 2, 'NoOp', '{}', NULL, 'tell whoever sent it', 1, '10 s', NULL),

    -- Nobody can register this one: it says why.
    ('archive', 1, 'NoOp', '{}', '{3}', 'list what is old', 1, '10 s', NULL),
    ('archive', 2, 'NoOp', '{}', '{1}', 'copy it', 1, '10 s', NULL),
    ('archive', 3, 'NoOp', '{}', '{2}', 'delete it', 1, '10 s', NULL);

INSERT INTO ms_workflow (task_id, description, max_running_flows, max_running_tasks) VALUES
    ('nightly', 'Orders and customers of the day, for the warehouse.', NULL, NULL),
    ('imports', 'Files that customers send, one after another.', 1, NULL),
    ('reports', 'One for each region, and one of all.', NULL, 4);

-- then

SELECT set_config('flower.reason', 'people want to know when it is there', true), set_config('flower.actor', 'alice', true);

INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs, description)
VALUES ('nightly', 5, 'EchoParamTimeSleep', -5, '{"SLEEP_TIME_SECOND": 1}', '{4}', 'notify');

-- then

-- The flows: which, when, by whom, and which task stopped in what way, if one did.
CREATE TEMP TABLE f ON COMMIT DROP AS
SELECT format('%s-%s-7%s-8%s-%s', left(h, 8), substr(h, 9, 4), left(m, 3), substr(m, 4, 3), substr(m, 7, 12)) AS id, x.*,
       0.7 + 0.9 * (('x' || left(m, 6))::bit(24)::int / 16777215.0) ^ 2 AS slow
FROM  (SELECT *, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS h, md5(workflow || n) AS m
       FROM  (SELECT 'nightly' AS workflow, n, date_trunc('hour', now()) - n * interval '30 minutes' + interval '90 s' AS at, 'cron' AS by,
                     CASE WHEN n IN (1, 7, 8, 9, 20) THEN 3 WHEN n = 33 THEN 1 WHEN n = 41 THEN 4 END AS stopped,
                     CASE WHEN n = 33 THEN 'cancelled' WHEN n = 41 THEN 'lost' ELSE 'failed' END AS how, n IN (7, 8, 9, 20) AS mended
              FROM generate_series(1, 60) n
              UNION ALL
              SELECT 'warehouse', n, date_trunc('hour', now()) - n * interval '30 minutes' + interval '150 s', 'task 3 of nightly',
                     CASE WHEN n % 19 = 3 THEN 5 END, 'failed', n > 30
              FROM generate_series(2, 56) n WHERE n NOT IN (7, 8, 9, 20, 33)
              UNION ALL
              SELECT 'billing', n, now() - n * interval '80 minutes' - interval '17 minutes', 'cron', CASE WHEN n % 6 = 2 THEN 2 END, 'timeout', n = 14
              FROM generate_series(0, 21) n
              UNION ALL
              SELECT 'reports', n, now() - n * interval '1 hour' - interval '41 minutes', CASE WHEN n % 4 = 1 THEN 'carol' ELSE 'cron' END,
                     CASE WHEN n % 9 = 4 THEN 4 WHEN n = 6 THEN 2 END, CASE WHEN n = 6 THEN 'held' ELSE 'failed' END, n > 15
              FROM generate_series(0, 31) n
              UNION ALL
              SELECT 'sync-crm', n, now() - n * interval '1 hour' - interval '5 minutes', 'cron', CASE WHEN n % 3 <> 1 OR n > 20 THEN NULL ELSE 2 END, 'timeout', false
              FROM generate_series(0, 29) n
              UNION ALL
              SELECT 'exporter', n, now() - n * interval '8 hours' - interval '26 hours', 'bob', 1, 'invalid', false
              FROM generate_series(0, 1) n) w) x
WHERE  at < now() - interval '2 minutes';

-- The tasks of each, with when they start at the usual speed and how long they take then.
CREATE TEMP TABLE t ON COMMIT DROP AS
SELECT * FROM (VALUES
    ('nightly', 1, 0.0, 55.0), ('nightly', 2, 0.0, 31.0), ('nightly', 3, 55.5, 24.0), ('nightly', 4, 80.0, 41.0), ('nightly', 5, 121.5, 2.0),
    ('warehouse', 1, 0, 0.1), ('warehouse', 2, 0.2, 21), ('warehouse', 3, 0.2, 14), ('warehouse', 4, 0.2, 33), ('warehouse', 5, 21.5, 12), ('warehouse', 6, 34, 6),
    ('billing', 1, 0, 48), ('billing', 2, 48.5, 17), ('billing', 3, 66, 22),
    ('reports', 1, 0, 1.2), ('reports', 2, 1.5, 45), ('reports', 3, 1.5, 32), ('reports', 4, 1.5, 39), ('reports', 5, 2, 25), ('reports', 6, 47, 2.3),
    ('sync-crm', 1, 0, 4), ('sync-crm', 2, 4.5, 2.4), ('exporter', 1, 0, 0)) AS t (workflow, seq, starts, takes);

INSERT INTO kr_flow (task_flow_id, task_id, registered_ts, registered_by, note)
SELECT id, workflow, at, by, CASE WHEN by = 'carol' THEN 'for the meeting' END FROM f ORDER BY at;

CREATE TEMP TABLE s ON COMMIT DROP AS
SELECT f.*, t.seq, d.program, d.parameters, d.description, d.max_attempts, d.retry_delay, d.timeout, d.depends_task_seqs,
       CASE WHEN stopped IS NULL OR mended THEN 3
            WHEN seq = stopped THEN 2
            WHEN seq < stopped OR starts + takes <= (SELECT o.starts FROM t o WHERE o.workflow = t.workflow AND o.seq = stopped) THEN 3
            WHEN how IN ('cancelled', 'held') THEN 2
            WHEN EXISTS (SELECT FROM t o WHERE o.workflow = t.workflow AND o.seq = stopped AND t.starts >= o.starts + o.takes) THEN 0 ELSE 3 END AS status,
       at + CASE WHEN mended AND seq >= stopped THEN interval '23 minutes' WHEN workflow = 'sync-crm' AND seq = stopped THEN '19 s' ELSE '0 s' END + starts * slow * interval '1 s' AS start,
       CASE WHEN seq = stopped AND how = 'timeout' AND NOT mended THEN d.timeout
            ELSE takes * slow * (0.8 + 0.2 * ('x' || left(md5(id || seq), 4))::bit(16)::int / 65535.0) * interval '1 s' END AS took,
       CASE WHEN seq = stopped THEN
           CASE workflow WHEN 'nightly' THEN CASE how WHEN 'lost' THEN 'its watcher vanished three times while it ran'
                                                      WHEN 'failed' THEN E'POST {site}/register/warehouse: 503 Service Unavailable\n'
                                                          || E'Retry-After: 120\n\n{"status":"failed","description":"the database is not available: try again"}' END
                         WHEN 'warehouse' THEN format(E'ERROR: duplicate key value violates unique constraint "order_customer_pkey" (23505)\nDETAIL: Key (order_id)=(%s) already exists.', 41200 + n)
                         WHEN 'billing' THEN 'it did not end within its timeout of 30s'
                         WHEN 'reports' THEN CASE how WHEN 'failed' THEN format('dial tcp 10.3.1.%s:5432: i/o timeout', n) END
                         WHEN 'sync-crm' THEN 'it did not end within its timeout of 4s'
                         ELSE 'no live watcher has the program "Report2019": they have Command, EchoParamTimeSleep, HTTPPostRequest, NoOp, SQL' END END AS error
FROM   f JOIN t USING (workflow)
LEFT   JOIN ms_task_definition d ON d.task_id = f.workflow AND d.task_seq = t.seq;

INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq, exec_status, task_priority,
    registered_ts, started_ts, finished_ts, suspended_ts, attempt, reason, error, output, program, parameters, description, max_attempts, retry_delay, timeout)
SELECT id, seq, coalesce(depends_task_seqs[1], CASE WHEN depends_task_seqs IS NULL THEN seq - 1 ELSE 0 END), depends_task_seqs, workflow, seq, status,
       CASE workflow WHEN 'nightly' THEN -5 ELSE 0 END, at,
       CASE WHEN status = 3 OR error IS NOT NULL THEN start END, CASE status WHEN 3 THEN start + took END,
       CASE status WHEN 2 THEN CASE WHEN error IS NOT NULL THEN start + took ELSE at + interval '40 s' END END,
       CASE WHEN status = 0 OR status = 2 AND error IS NULL THEN 0 WHEN mended AND seq = stopped THEN 2 WHEN workflow = 'sync-crm' AND seq = 2 AND status = 2 THEN 2 ELSE 1 END,
       CASE status WHEN 2 THEN how END, CASE status WHEN 2 THEN error END,
       CASE WHEN status = 3 AND program = 'EchoParamTimeSleep' AND seq % 2 = 1 THEN jsonb_build_object('rows', 100 + (n * 37 + seq * 11) % 900) END,
       coalesce(program, 'Report2019'), coalesce(parameters, '{}'), coalesce(description, 'export for the auditors'),
       coalesce(max_attempts, 1), coalesce(retry_delay, '10 s'), timeout
FROM   s ORDER BY at, id, seq;

-- What was mended: the attempt that failed, and who has run it again.
INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts, reason, error)
SELECT id, seq, 1, 2, start - interval '23 minutes', start - interval '23 minutes' + took, how, error FROM s WHERE mended AND seq = stopped
UNION ALL
SELECT id, seq, 1, 2, start - interval '19 s', start - interval '15 s', how, error FROM s WHERE workflow = 'sync-crm' AND status = 2;

DELETE FROM kr_event WHERE kind = 'insert';  -- nobody has done that but we
INSERT INTO kr_event (event_ts, task_flow_id, task_exec_seq, old_status, new_status, note, actor, kind, way)
SELECT * FROM (
    SELECT start - interval '1 s', id, seq, 2, 0, CASE workflow WHEN 'nightly' THEN 'the database was down for maintenance' WHEN 'warehouse' THEN 'removed what was there twice' END,
           CASE WHEN n % 3 = 0 THEN 'bob' ELSE 'alice' END, 'rerun', CASE WHEN n % 2 = 0 THEN 'ui' ELSE 'api' END
    FROM s WHERE mended AND seq = stopped
    UNION ALL
    SELECT at + interval '40 s', id, seq, 0, 2, CASE how WHEN 'held' THEN 'until the new figures are in' END, 'carol', CASE how WHEN 'held' THEN 'hold' ELSE 'cancel' END, 'ui'
    FROM s WHERE status = 2 AND how IN ('held', 'cancelled')) e (ts) ORDER BY ts;

INSERT INTO kr_task_log (task_flow_id, task_exec_seq, attempt, claim_id, line_no, line_ts, stream, text)
SELECT id, seq, CASE WHEN workflow = 'sync-crm' AND status = 2 THEN 2 ELSE 1 END, gen_random_uuid(), l.no, start + took * l.part, 'log', l.text
FROM   s, (VALUES (1, 0.0, 'begin'), (2, 0.4, '412 of 980 done'), (3, 0.9, 'waits for an answer')) AS l (no, part, text)
WHERE  error IS NOT NULL AND program IS NOT NULL AND NOT mended;

-- What watchers would have counted.
INSERT INTO kr_tally (tally_ts, tallied_by, finished, failed)
SELECT minute, '00000000-0000-4000-8000-000000000000', count(*) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok)
FROM  (SELECT date_trunc('minute', finished_ts) AS minute, true AS ok FROM kr_task_stat WHERE exec_status = 3
       UNION ALL
       SELECT date_trunc('minute', suspended_ts), false FROM kr_task_stat WHERE exec_status = 2 AND reason NOT IN ('held', 'cancelled')
       UNION ALL
       SELECT date_trunc('minute', ended_ts), false FROM kr_task_attempt) x
GROUP  BY 1;
