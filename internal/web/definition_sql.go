package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// definitionSQL writes the statements that make a definition. Values that look secret are
// masked, and a comment says so: whoever may read a page may not read those.
func definitionSQL(d flow.Definition) string {
	var b strings.Builder
	if strings.Contains(string(maskedParameters(d)), `"***"`) {
		b.WriteString("-- Values that look like secrets are *** here: put them in.\n")
	}
	b.WriteString("INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs,\n" +
		"                                max_attempts, retry_delay, timeout, on_lost, run_if, description) VALUES\n")
	for i, t := range definedRows(d.Tasks, nil, query{}) {
		depends := "NULL"
		if t.DependsOn != nil {
			depends = literal("{" + joinInts(t.DependsOn, ",") + "}")
		}
		row := []string{
			literal(string(d.ID)), strconv.Itoa(t.Seq), literal(t.Program), strconv.Itoa(t.Priority), jsonLiteral(t.Whole), depends,
			strconv.Itoa(max(t.MaxAttempts, 1)), interval(t.RetryDelay), "NULL", literal(string(t.OnLost)), nullableLiteral(t.RunIf), nullableLiteral(t.Description),
		}
		if t.OnLost == "" {
			row[9] = literal(string(flow.OnLostRerun))
		}
		if t.Timeout > 0 {
			row[8] = interval(t.Timeout)
		}
		end := ","
		if i == len(d.Tasks)-1 {
			end = ";"
		}
		fmt.Fprintf(&b, "    (%s)%s\n", strings.Join(row, ", "), end)
	}
	if d.Description != "" || d.MaxRunningFlows > 0 || d.MaxRunningTasks > 0 {
		fmt.Fprintf(&b, "INSERT INTO ms_workflow (task_id, description, max_running_flows, max_running_tasks) VALUES (%s, %s, %s, %s);\n",
			literal(string(d.ID)), nullableLiteral(d.Description), number0(d.MaxRunningFlows), number0(d.MaxRunningTasks))
	}
	return b.String()
}

func maskedParameters(d flow.Definition) (all []byte) {
	for _, t := range d.Tasks {
		all = append(all, pretty(t.Parameters)...)
	}
	return all
}

// literal writes a text as SQL has it. \ means nothing in one.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func nullableLiteral(text string) string {
	if text == "" {
		return "NULL"
	}
	return literal(text)
}

func jsonLiteral(text string) string {
	if text == "" {
		text = "{}"
	}
	return literal(oneLine(text))
}

func number0(n int) string {
	if n == 0 {
		return "NULL"
	}
	return strconv.Itoa(n)
}

func interval(d time.Duration) string {
	return literal(strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s")
}
