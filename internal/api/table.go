package api

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// table is an answer as rows: text for a terminal, or CSV.
type table struct {
	columns []string
	numbers []int // columns that end at the same place in text
	rows    [][]string
	foot    string // of text alone
}

// add adds a row.
func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// text writes it in columns. What does not fit a line is cut: grep finds rows, JSON has
// all. The last column may be long.
func (t table) text() string {
	rows := make([][]string, 0, len(t.rows)+1)
	head := make([]string, len(t.columns))
	for i, c := range t.columns {
		head[i] = strings.ToUpper(c)
	}
	rows = append(rows, head)
	for _, r := range t.rows {
		row := make([]string, len(r))
		for i, cell := range r {
			most := maxTitle
			if i == len(r)-1 {
				most = maxError
			}
			row[i] = clip(cell, most)
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	alignColumns(&b, rows, t.numbers)
	return b.String() + t.foot
}

// alignColumns writes rows so that all columns but the last have one width.
func alignColumns(b *strings.Builder, rows [][]string, numbers []int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	right := make([]bool, len(widths))
	for _, i := range numbers {
		right[i] = true
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-width(cell))
			if right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// csv writes it for spreadsheets, with the names of the columns first. A text that a
// spreadsheet would take for a formula gets an apostrophe.
func (t table) csv() string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	rows := append([][]string{t.columns}, t.rows...)
	for _, row := range rows {
		safe := make([]string, len(row))
		for i, cell := range row {
			if isFormula(cell) {
				cell = "'" + cell
			}
			safe[i] = cell
		}
		_ = w.Write(safe) // to memory
	}
	w.Flush()
	return b.String()
}

// isFormula: -5 is a number, such as a priority, whatever it begins with.
func isFormula(cell string) bool {
	_, err := strconv.Atoi(cell)
	return err != nil && cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0]))
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// at writes a time for people.
func at(t *timestamp) string {
	if t == nil {
		return ""
	}
	return time.Time(*t).UTC().Format("2006-01-02 15:04:05Z")
}

// took writes a duration for people.
func took(ms *int64) string {
	if ms == nil {
		return ""
	}
	return shortDuration(time.Duration(*ms) * time.Millisecond)
}

func (l FlowList) table() table {
	t := table{columns: []string{"flow", "workflow", "status", "done", "registered", "took", "by", "failure"}, numbers: []int{3, 5}}
	for _, f := range l.Items {
		c := f.Counts
		failure := ""
		switch {
		case f.Failure != nil:
			failure = fmt.Sprintf("%d %s: %s", f.Failure.TaskExecSeq, f.Failure.Title, orZero(f.Failure.Error))
		case f.Question != nil:
			failure = fmt.Sprintf("%d asks: %s", f.Question.TaskExecSeq, f.Question.Text)
		}
		t.add(f.TaskFlowID, f.TaskID, f.Status, fmt.Sprintf("%d/%d", c.Finished+c.Ignored, c.Waiting+c.Running+c.Suspended+c.Finished+c.Ignored),
			at(f.RegisteredTs), took(f.DurationMs), orZero(f.RegisteredBy), failure)
	}
	if l.NextCursor != nil {
		t.foot = "more: &cursor=" + *l.NextCursor + "\n"
	}
	return t
}
