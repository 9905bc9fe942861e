-- +goose Up

-- Programs working together: a command's data goes into SQL, a service is asked, a person
-- decides, and another command publishes. It needs a watcher with these programs, and the
-- commands sample-extract and sample-publish: make run and the compose file have both.
-- A request may say where register is, and nothing else of the URL.
INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, depends_task_seqs, timeout, max_attempts, description, parameters)
VALUES
    ('sample-etl', 1, 'Command', 10, '{}', '1 min', 1, 'extract the orders',
     '{"argv": ["sample-extract"]}'),
    ('sample-etl', 2, 'SQL', 10, '{1}', '1 min', 1, 'count them',
     '{"statement": "SELECT count(*) AS orders, sum(amount) AS total FROM jsonb_to_recordset($1::jsonb) AS o(amount numeric)",
       "args": ["${{ outputs[1].json.orders }}"]}'),
    ('sample-etl', 3, 'SQL', 10, '{1}', '1 min', 1, 'rank the customers',
     '{"statement": "SELECT customer, sum(amount) AS amount FROM jsonb_to_recordset($1::jsonb) AS o(customer text, amount numeric) GROUP BY customer ORDER BY amount DESC",
       "args": ["${{ outputs[1].json.orders }}"]}'),
    ('sample-etl', 4, 'HTTPRequest', 10, '{2,3}', '1 min', 3, 'look whether register is up',
     '{"url": "http://${{ (params.register ?? \"\") matches \"^(localhost|register):[0-9]+$\" ? params.register : \"localhost:8000\" }}/healthz"}'),
    ('sample-etl', 5, 'Approve', 10, '{4}', NULL, 1, 'ask whether to publish',
     '{"message": "publish ${{ outputs[2].rows[0].orders }} orders of ${{ outputs[2].rows[0].total }} in all, most of them by ${{ outputs[3].rows[0].customer }}?"}'),
    ('sample-etl', 6, 'Command', 10, '{5}', '1 min', 1, 'publish the report',
     '{"argv": ["sample-publish"], "stdin": "${{ outputs[3].rows }}", "env": {"APPROVED_BY": "${{ outputs[5]?.approved_by ?? \"nobody\" }}"}}')
ON CONFLICT DO NOTHING;

-- +goose Down
DELETE FROM ms_task_definition WHERE task_id = 'sample-etl';
