package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// outputsSQL reads what tasks that $1, $2 comes after have returned. A task that runs
// beside it is none of those, or what a program sees would depend on who was faster. They
// are asked for by task_seq, the number that whoever wrote the workflow knows.
const outputsSQL = `
-- flower: outputs
WITH RECURSIVE before AS (
    SELECT unnest(flower_parents(depends_task_exec_seq, depends_task_exec_seqs)) AS seq
    FROM   kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2
    UNION
    SELECT unnest(flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))
    FROM   before b JOIN kr_task_stat t ON t.task_flow_id = $1 AND t.task_exec_seq = b.seq
)
SELECT t.task_seq, t.output::text AS output
FROM   before b
JOIN   kr_task_stat t    ON t.task_flow_id = $1 AND t.task_exec_seq = b.seq
JOIN   kr_task_stat self ON self.task_flow_id = $1 AND self.task_exec_seq = $2 AND self.task_id = t.task_id
WHERE  t.task_seq = ANY ($3::int[]) AND t.exec_status = 3 AND t.output IS NOT NULL
ORDER  BY t.task_exec_seq`

// Outputs returns what tasks that a task comes after, directly or not, have returned, by
// the task_seq of their definition. Those that have no output are missing.
func (d *DB) Outputs(ctx context.Context, of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error) {
	wanted := make([]int32, len(seqs))
	for i, s := range seqs {
		wanted[i] = int32(s)
	}
	var rows []struct {
		Seq    int    `db:"task_seq"`
		Output string `db:"output"`
	}
	err := d.pool.SelectContext(ctx, &rows, outputsSQL, string(of.Flow), of.Seq, pq.Array(wanted))
	if err != nil {
		return nil, translate(fmt.Sprintf("read outputs for task %s", of), err)
	}
	outputs := make(map[int]json.RawMessage, len(rows))
	for _, r := range rows {
		outputs[r.Seq] = json.RawMessage(r.Output)
	}
	return outputs, nil
}
