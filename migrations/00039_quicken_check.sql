-- +goose Up

-- Most tasks depend on one other, or on none: these are compared with their parents all at
-- once, and not one by one. With a million tasks v_invariant takes 1.9 s instead of 3.6; the
-- programs' check of it, which may take a minute, would have come to nothing beyond sixteen.
CREATE OR REPLACE VIEW v_invariant AS
SELECT 'unmet counts what is not satisfied' AS rule, t.task_flow_id, t.task_exec_seq,
       format('unmet is %s', coalesce(t.unmet::text, 'NULL')) AS detail
FROM   kr_task_stat t
WHERE  t.exec_status = 0
       AND t.unmet IS DISTINCT FROM (SELECT count(DISTINCT d) FROM unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
                                     WHERE ((SELECT p.exec_status FROM kr_task_stat p WHERE p.task_flow_id = t.task_flow_id
                                             AND p.task_exec_seq = d) IN (3, 9)) IS NOT TRUE)
UNION ALL
SELECT 'what can go is in the queue', t.task_flow_id, t.task_exec_seq, 'no entry in kr_ready'
FROM   kr_task_stat t
WHERE  t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
       AND NOT EXISTS (SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
                       AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq)
UNION ALL
SELECT 'only what can go is in the queue', r.task_flow_id, r.task_exec_seq, 'its task cannot go'
FROM   kr_ready r
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
                   AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
                   AND t.task_priority = r.task_priority AND t.registered_ts = r.registered_ts)
UNION ALL
SELECT 'owned means running', t.task_flow_id, t.task_exec_seq, format('exec_status is %s, watcher_id is %s', t.exec_status, t.watcher_id)
FROM   kr_task_stat t
WHERE  t.watcher_id IS NOT NULL AND t.exec_status <> 1
UNION ALL
SELECT 'only a suspended task has a reason', t.task_flow_id, t.task_exec_seq, format('exec_status is %s, reason is %s', t.exec_status, t.reason)
FROM   kr_task_stat t
WHERE  t.reason IS NOT NULL AND t.exec_status <> 2
UNION ALL
SELECT 'a task knows its dependents', t.task_flow_id, t.task_exec_seq, format('task %s does not list it', p.task_exec_seq)
FROM   kr_task_stat t
JOIN   kr_task_stat p ON p.task_flow_id = t.task_flow_id AND p.task_exec_seq = t.depends_task_exec_seq
WHERE  t.depends_task_exec_seqs IS NULL AND t.depends_task_exec_seq > 0 AND NOT t.task_exec_seq = ANY (p.dependents)
UNION ALL
SELECT 'a task knows its dependents', t.task_flow_id, t.task_exec_seq, format('task %s does not list it', d)
FROM   kr_task_stat t
CROSS  JOIN unnest(t.depends_task_exec_seqs) d
WHERE  t.depends_task_exec_seqs IS NOT NULL
       AND NOT (SELECT t.task_exec_seq = ANY (p.dependents) FROM kr_task_stat p
                WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d)
UNION ALL
SELECT 'the gate is for workflows with a limit', t.task_flow_id, t.task_exec_seq,
       format('gate is %s, exec_status is %s', t.gate, t.exec_status)
FROM   kr_task_stat t
LEFT   JOIN ms_workflow w ON w.task_id = t.task_id AND coalesce(w.max_running_flows, w.max_running_tasks) IS NOT NULL
WHERE  CASE WHEN t.exec_status = 0 AND w.task_id IS NOT NULL
                 THEN CASE WHEN t.unmet = 0 AND t.run_after IS NULL THEN t.gate NOT IN (2, 3) ELSE t.gate <> 1 END
            WHEN t.exec_status = 0 THEN t.gate <> 0
            WHEN t.exec_status <> 1 THEN t.gate > 1 END;

-- +goose Down
CREATE OR REPLACE VIEW v_invariant AS
SELECT 'unmet counts what is not satisfied' AS rule, t.task_flow_id, t.task_exec_seq,
       format('unmet is %s', coalesce(t.unmet::text, 'NULL')) AS detail
FROM   kr_task_stat t
WHERE  t.exec_status = 0
       AND t.unmet IS DISTINCT FROM (SELECT count(DISTINCT d) FROM unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
                                     WHERE ((SELECT p.exec_status FROM kr_task_stat p WHERE p.task_flow_id = t.task_flow_id
                                             AND p.task_exec_seq = d) IN (3, 9)) IS NOT TRUE)
UNION ALL
SELECT 'what can go is in the queue', t.task_flow_id, t.task_exec_seq, 'no entry in kr_ready'
FROM   kr_task_stat t
WHERE  t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
       AND NOT EXISTS (SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
                       AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq)
UNION ALL
SELECT 'only what can go is in the queue', r.task_flow_id, r.task_exec_seq, 'its task cannot go'
FROM   kr_ready r
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
                   AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
                   AND t.task_priority = r.task_priority AND t.registered_ts = r.registered_ts)
UNION ALL
SELECT 'owned means running', t.task_flow_id, t.task_exec_seq, format('exec_status is %s, watcher_id is %s', t.exec_status, t.watcher_id)
FROM   kr_task_stat t
WHERE  t.watcher_id IS NOT NULL AND t.exec_status <> 1
UNION ALL
SELECT 'only a suspended task has a reason', t.task_flow_id, t.task_exec_seq, format('exec_status is %s, reason is %s', t.exec_status, t.reason)
FROM   kr_task_stat t
WHERE  t.reason IS NOT NULL AND t.exec_status <> 2
UNION ALL
SELECT 'a task knows its dependents', t.task_flow_id, t.task_exec_seq, format('task %s does not list it', d)
FROM   kr_task_stat t
CROSS  JOIN unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs)) d
WHERE  NOT (SELECT t.task_exec_seq = ANY (p.dependents) FROM kr_task_stat p
            WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d)
UNION ALL
SELECT 'the gate is for workflows with a limit', t.task_flow_id, t.task_exec_seq,
       format('gate is %s, exec_status is %s', t.gate, t.exec_status)
FROM   kr_task_stat t
LEFT   JOIN ms_workflow w ON w.task_id = t.task_id AND coalesce(w.max_running_flows, w.max_running_tasks) IS NOT NULL
WHERE  CASE WHEN t.exec_status = 0 AND w.task_id IS NOT NULL
                 THEN CASE WHEN t.unmet = 0 AND t.run_after IS NULL THEN t.gate NOT IN (2, 3) ELSE t.gate <> 1 END
            WHEN t.exec_status = 0 THEN t.gate <> 0
            WHEN t.exec_status <> 1 THEN t.gate > 1 END;
