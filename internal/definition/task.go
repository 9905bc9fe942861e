package definition

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/flow"
)

const (
	maxInteger = math.MaxInt32 // PostgreSQL's integer
	maxProgram = 256           // characters of a program's name
)

// task reads a task; seq is what it has if it does not say. Tied: it is known which task it
// is, and on which others it depends.
func (d decoder) task(n *node, seq int) (t flow.TaskDefinition, tied bool) {
	t = flow.TaskDefinition{
		Seq: seq, MaxAttempts: flow.DefaultMaxAttempts, RetryDelay: flow.DefaultRetryDelay, OnLost: flow.OnLostRerun,
	}
	title := ""
	tied = true
	ok := d.fields(n, "a task", map[string]func(*node){
		"seq": func(n *node) {
			tied = d.clean(func() { t.Seq = d.integer(n, "seq", 1, maxInteger) }) && tied
		},
		"title":       func(n *node) { title = d.title(n) },
		"description": func(n *node) { t.Description = d.text(n, "description") },
		"program":     func(n *node) { t.Program = d.name(n, "program", maxProgram) },
		"parameters":  func(n *node) { t.Parameters = d.parameters(n) },
		"dependsOn": func(n *node) {
			tied = d.clean(func() { t.DependsOn = d.dependencies(n) }) && tied
		},
		"priority":    func(n *node) { t.Priority = d.integer(n, "priority", flow.MinPriority, flow.MaxPriority) },
		"maxAttempts": func(n *node) { t.MaxAttempts = d.integer(n, "maxAttempts", 1, maxInteger) },
		"retryDelay":  func(n *node) { t.RetryDelay = d.duration(n, "retryDelay", 0) },
		"timeout":     func(n *node) { t.Timeout = d.duration(n, "timeout", time.Millisecond) },
		"onLost":      func(n *node) { t.OnLost = d.onLost(n) },
		"runIf":       func(n *node) { t.RunIf = d.text(n, "runIf") },
	})
	if !ok {
		return t, false
	}
	if p := n.values["program"]; p == nil || p.kind == isNull {
		d.wrong(n, "the task has no program: it says what runs")
	}
	t.Description = joinTitle(title, t.Description)
	return t, tied
}

// joinTitle makes what is stored as one: the title is the first line of a description.
func joinTitle(title, description string) string {
	if title == "" || description == "" {
		return title + description
	}
	return title + "\n" + description
}

// splitTitle undoes joinTitle. A description that does not begin with a title stays whole.
func splitTitle(text string) (title, description string) {
	title, description, more := strings.Cut(text, "\n")
	if title == "" || more && description == "" {
		return "", text
	}
	return title, description
}

func (d decoder) text(n *node, what string) string {
	switch {
	case n.kind == isNumber || n.kind == isBool:
		d.wrong(n, "%s must be a text, and this is %s: put it in quotes", what, n.kind)
	case n.kind != isString:
		d.wrong(n, "%s must be a text, and this is %s", what, n.kind)
	case n.withNUL() != nil:
		d.wrong(n, "%s has the character U+0000, which no text in the database can have", what)
	}
	return n.text
}

// name reads a text of 1 to n characters.
func (d decoder) name(n *node, what string, most int) string {
	s := d.text(n, what)
	if n.kind == isString && (s == "" || utf8.RuneCountInString(s) > most) {
		d.wrong(n, "%s must have from 1 to %d characters", what, most)
	}
	return s
}

func (d decoder) title(n *node) string {
	s := d.text(n, "title")
	if n.kind == isString && (s == "" || strings.Contains(s, "\n")) {
		d.wrong(n, "title must be one line; what is longer is a description")
	}
	return s
}

func (d decoder) integer(n *node, what string, least, most int) int {
	i, ok := whole(n)
	if !ok || i < least || i > most {
		d.wrong(n, "%s must be a whole number from %d to %d", what, least, most)
	}
	return i
}

// whole returns a number if it is a whole one, however it is written, and not too large.
func whole(n *node) (int, bool) {
	if n.kind != isNumber {
		return 0, false
	}
	if i, err := strconv.Atoi(n.text); err == nil {
		return i, true
	}
	_, exponent, _ := strings.Cut(strings.ToLower(n.text), "e")
	if len(exponent) > 3 || len(n.text) > 100 { // before anybody computes it
		return 0, false
	}
	r, ok := new(big.Rat).SetString(n.text)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return int(r.Num().Int64()), true
}

func (d decoder) parameters(n *node) []byte {
	if n.kind != isObject {
		d.wrong(n, "parameters must be an object, as in {URL: https://example.com}, and this is %s", n.kind)
		return nil
	}
	if bad := n.withNUL(); bad != nil {
		d.wrong(bad, "parameters have the character U+0000, which no text in the database can have")
	}
	if bad := n.tooLarge(); bad != nil {
		d.wrong(bad, "the number is too large or too exact: put it in quotes")
	}
	if bad := n.concealed(); bad != nil {
		d.wrong(bad, "*** stands here for a secret that was not shown: put that in")
	}
	return n.json()
}

func (d decoder) dependencies(n *node) []int {
	if n.kind != isList {
		d.wrong(n, "dependsOn must be a list of the seqs of other tasks, as in [1, 2], and this is %s", n.kind)
		return nil
	}
	seqs := []int{}
	for _, item := range n.items {
		seqs = append(seqs, d.integer(item, "the seq of a task", 1, maxInteger))
	}
	return seqs
}

func (d decoder) onLost(n *node) flow.OnLost {
	s := flow.OnLost(n.text)
	if n.kind != isString || s != flow.OnLostRerun && s != flow.OnLostSuspend {
		d.wrong(n, "onLost must be %s or %s", flow.OnLostRerun, flow.OnLostSuspend)
	}
	return s
}

func (d decoder) duration(n *node, what string, least time.Duration) time.Duration {
	t, ok := flow.ParseDuration(n.text)
	t = t.Round(time.Millisecond) // in which the schema counts
	ok = ok && (n.kind == isNumber || n.kind == isString && durationText.MatchString(n.text))
	if !ok || t < least {
		d.wrong(n, "%s must be a time such as 30s, 1h30m or 2d, or a number of seconds, of at least %s", what, least)
	}
	return t
}
