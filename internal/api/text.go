package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/flow"
)

// Widths of text for a terminal, in columns.
const (
	maxTitle = 40
	maxError = 120
)

// tree is a flow made ready to be shown as text.
type tree struct {
	flow.State
	status  map[int]flow.Status // of a task, by its Seq
	blocker map[int]int         // a suspended task that one waits for, by the latter's Seq
}

// flowText is a flow as a table for a terminal. Each state is a word, so that grep finds
// it, and there are no colour codes, which would spoil a file.
func flowText(s flow.State, v view) string {
	t := newTree(s)
	rows := make([][]string, len(s.Tasks))
	for i, task := range s.Tasks {
		word, mark := t.describe(task)
		if v.ascii {
			mark = marksASCII[mark]
		}
		took := ""
		if d, known := duration(task.StartedAt, task.Ended(), runningUntil(task, s.AsOf)); known {
			took = shortDuration(d)
		}
		rows[i] = []string{mark, strconv.Itoa(task.Seq), clip(task.Title(), maxTitle), word, took, t.remark(task)}
	}
	var b strings.Builder
	b.WriteString(t.headline())
	align(&b, rows)
	t.writeQuestions(&b, v)
	if s.Recover != "" {
		t.writeInvalid(&b)
		b.WriteString(" rerun: " + oneLine(s.Recover) + "\n")
		if v.site != "" {
			b.WriteString("    or: " + v.curl(flowURL(s.ID)+"/rerun") + "\n")
		}
	}
	return b.String()
}

// writeInvalid says of what a rerun alone cannot help.
func (t tree) writeInvalid(b *strings.Builder) {
	var seqs []string
	for _, task := range t.Tasks {
		if task.Status == flow.Suspended && task.Reason == flow.ReasonInvalid {
			seqs = append(seqs, strconv.Itoa(task.Seq))
		}
	}
	const most = 10
	if len(seqs) > most {
		seqs = append(seqs[:most], "…")
	}
	if len(seqs) > 0 {
		fmt.Fprintf(b, " first: correct what the error of task %s says, or a rerun ends alike: a parameter with the rerun itself, "+
			"-d '{\"parameters\": {\"NAME\": \"VALUE\"}}', a program by a watcher that has it\n", strings.Join(seqs, ", "))
	}
}

// writeQuestions says how to answer what tasks ask.
func (t tree) writeQuestions(b *strings.Builder, v view) {
	for _, task := range t.Tasks {
		if !task.Asks {
			continue
		}
		fmt.Fprintf(b, " approve: SELECT flower_approve(%s, %d);  no: SELECT flower_cancel(%[1]s, 'why', %[2]d);\n", sqlText(oneLine(string(t.ID))), task.Seq)
		if v.site != "" {
			fmt.Fprintf(b, "      or: %s  no: …/cancel\n", v.curl(fmt.Sprintf("%s/tasks/%d/approve", flowURL(t.ID), task.Seq)))
		}
	}
}

// sqlText writes a text as SQL does.
func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func newTree(s flow.State) tree {
	t := tree{s, make(map[int]flow.Status, len(s.Tasks)), flow.Blockers(s.Tasks)}
	for _, task := range s.Tasks {
		t.status[task.Seq] = task.Status
	}
	return t
}

func (t tree) headline() string {
	done := 0
	for _, task := range t.Tasks {
		if task.Status.Satisfies() {
			done++
		}
	}
	parts := []string{
		oneLine(string(t.WorkflowID)), oneLine(string(t.ID)), strings.ToUpper(t.Status),
		fmt.Sprintf("%d of %d finished", done, len(t.Tasks)),
	}
	if asks := t.asking(); t.Status == flow.FlowHeld && asks > 0 {
		parts[2] += ", ASKS"
	}
	if started := t.StartedAt; !started.IsZero() {
		parts = append(parts, "started "+started.UTC().Format("2006-01-02 15:04:05Z"))
	}
	if d, known := duration(t.StartedAt, t.EndedAt, t.AsOf); known {
		parts = append(parts, "took "+shortDuration(d))
	}
	if t.RegisteredBy != "" {
		parts = append(parts, "by "+clip(t.RegisteredBy, maxTitle))
	}
	return strings.Join(parts, "  ") + "\n"
}

func (t tree) asking() (n int) {
	for _, task := range t.Tasks {
		if task.Asks {
			n++
		}
	}
	return n
}

// The marks, and what stands for them where only ASCII can be shown.
var marksASCII = map[string]string{
	"✔": "+", "✖": "x", "⊖": "-", "○": ".", "▶": ">", "‖": "=", "■": "#", "⊘": "/", "?": "?",
}

// describe returns the word and the mark of a task's state.
func (t tree) describe(task flow.TaskState) (word, mark string) {
	switch task.Status {
	case flow.Running:
		return "running", "▶"
	case flow.Finished:
		return "finished", "✔"
	case flow.Ignored:
		return "skipped", "⊘"
	case flow.Suspended:
		if task.Asks {
			return "asks", "?"
		}
		return describeSuspended(task.Reason)
	case flow.Waiting:
		switch {
		case t.blocker[task.Seq] != 0:
			return "blocked", "⊖"
		case len(t.unmet(task)) > 0:
			return "waiting", "○"
		case task.Paused, t.delayed(task):
			return "waiting", "○"
		case task.RunAfter.After(t.AsOf):
			return "retry", "○"
		}
		return "queued", "○"
	}
	return task.Status.String(), "○"
}

func describeSuspended(r flow.Reason) (word, mark string) {
	switch r {
	case "":
		return "suspended", "✖"
	case flow.ReasonTimeout:
		return "timed out", "✖"
	case flow.ReasonHeld:
		return "held", "‖"
	case flow.ReasonCancelled:
		return "cancelled", "■"
	}
	return string(r), "✖"
}

// remark is what else there is to say about a task.
func (t tree) remark(task flow.TaskState) string {
	var parts []string
	switch {
	case task.MaxAttempts > 1 && task.Attempt > 0 && task.Attempt <= task.MaxAttempts:
		parts = append(parts, fmt.Sprintf("attempt %d of %d", task.Attempt, task.MaxAttempts))
	case task.Attempt > 1: // rerun by a person: the two numbers say nothing together
		parts = append(parts, fmt.Sprintf("attempt %d", task.Attempt))
	}
	if task.Status == flow.Waiting {
		if why := t.waits(task); why != "" {
			parts = append(parts, why)
		}
	}
	if task.Error != "" && task.Status != flow.Finished {
		parts = append(parts, clip(task.Error, maxError))
	}
	return strings.Join(parts, "  ")
}

// delayed reports whether a task that has not failed waits for a time.
func (t tree) delayed(task flow.TaskState) bool {
	return task.Wait.Reason == "time" && task.RunAfter.After(t.AsOf)
}

// waits says what a waiting task waits for. That it waits for a worker its word says.
func (t tree) waits(task flow.TaskState) string {
	unmet := t.unmet(task)
	switch {
	case t.blocker[task.Seq] != 0:
		return fmt.Sprintf("by %d", t.blocker[task.Seq])
	case len(unmet) > 0:
		return "for " + strings.Join(unmet, ", ")
	case task.Paused && task.Why != "":
		return clip(task.Why, maxError)
	case task.Paused, t.delayed(task):
		return "until " + task.RunAfter.UTC().Format("2006-01-02 15:04:05Z")
	case task.RunAfter.After(t.AsOf):
		return "at " + t.clock(task.RunAfter)
	}
	switch task.Wait.Reason {
	case "time", "no_watcher", "limit":
		return clip(task.Wait.Why, maxError)
	}
	return ""
}

// clock writes a time, of another day with its date.
func (t tree) clock(at time.Time) string {
	at = at.UTC()
	if at.Format(time.DateOnly) == t.AsOf.UTC().Format(time.DateOnly) {
		return at.Format("15:04:05Z")
	}
	return at.Format("2006-01-02 15:04:05Z")
}

// unmet returns the tasks that one waits for, the first few by name.
func (t tree) unmet(task flow.TaskState) []string {
	const most = 5
	var seqs []string
	for _, p := range task.Parents {
		if t.status[p].Satisfies() {
			continue
		}
		if len(seqs) == most {
			return append(seqs, "…")
		}
		seqs = append(seqs, strconv.Itoa(p))
	}
	return seqs
}

// align writes rows as a table: all columns but the last have one width, and numbers
// (the second and the fifth) end at the same place.
func align(b *strings.Builder, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-width(cell))
			gap := "  "
			if i < 3 {
				gap = " "
			}
			if i == 1 || i == 4 {
				line.WriteString(gap + pad + cell)
			} else {
				line.WriteString(gap + cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// width returns how many columns a terminal needs for a text.
func width(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) {
			n++
		}
	}
	return n
}

// clip returns the first line of a text, at most n characters of it.
func clip(s string, n int) string {
	first, _, more := strings.Cut(strings.TrimSpace(s), "\n")
	runes := []rune(oneLine(first))
	if len(runes) > n {
		runes, more = runes[:n], true
	}
	if more {
		return string(runes) + "…"
	}
	return string(runes)
}

// oneLine takes away what could command a terminal: these texts were written by others.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsGraphic(r):
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// shortDuration writes 12.4s, 2m06s, 1h02m.
func shortDuration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
