package flow

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Definition is a workflow together with what belongs to it as a whole: what people write
// down, in a file or as rows.
type Definition struct {
	Workflow
	Description     string
	MaxRunningFlows int // 0 is any number
	MaxRunningTasks int
}

// The max_attempts and the retry_delay of a definition that says nothing.
const (
	DefaultMaxAttempts = 1
	DefaultRetryDelay  = 10 * time.Second
)

// DefinitionVersion is a definition that a workflow has, or has had.
type DefinitionVersion struct {
	Version     int         // rises by one with each change
	Definition  *Definition // nil: the workflow was deleted
	Digest      string      // of the definition: the same for the same content
	AppliedAt   time.Time
	AppliedBy   string
	Application string // by way of what program
	Note        string // why
}

// AnyVersion is what a workflow must have of which only the existence counts.
const AnyVersion = -1

// DefinitionEdit changes definitions, all of them or none.
type DefinitionEdit struct {
	Put    []Definition // as they shall be; those that are so already stay untouched
	Delete []WorkflowID
	Prune  bool // delete all others, too

	// Expect has versions that the workflows must have, 0 where there must be none.
	Expect map[WorkflowID]int

	Actor  string // who asks; empty is the login of the database
	Note   string // why, for people to read
	DryRun bool   // change nothing; the answer is the same
}

// EditedDefinition is what an edit makes of one workflow.
type EditedDefinition struct {
	ID       WorkflowID
	Old, New *Definition // nil: there was none, or is none any more
	Version  int         // of New; in a dry run of what there is. 0 if there is none
}

// What says it in a word.
func (e EditedDefinition) What() string {
	switch {
	case e.Old == nil && e.New == nil:
		return "absent"
	case e.Old == nil:
		return "created"
	case e.New == nil:
		return "deleted"
	case e.Old.Equal(*e.New):
		return "unchanged"
	}
	return "changed"
}

// VersionError says that a workflow has another version than the one that an edit was
// meant for. Nothing has changed.
type VersionError struct {
	ID         WorkflowID
	Want, Have int // 0 is none
}

func (e *VersionError) Error() string {
	version := func(n int) string {
		switch n {
		case 0:
			return "does not exist"
		case AnyVersion:
			return "exists"
		}
		return "has version " + strconv.Itoa(n)
	}
	return "workflow " + strconv.Quote(string(e.ID)) + " " + version(e.Have) + " now; the edit is for one that " + version(e.Want)
}

// Equal reports whether two definitions say the same, whatever the order of their tasks.
func (d Definition) Equal(other Definition) bool {
	if d.ID != other.ID || d.Description != other.Description || d.MaxRunningFlows != other.MaxRunningFlows ||
		d.MaxRunningTasks != other.MaxRunningTasks || len(d.Tasks) != len(other.Tasks) {
		return false
	}
	return slices.EqualFunc(sortedTasks(d.Tasks), sortedTasks(other.Tasks), TaskDefinition.Equal)
}

func sortedTasks(tasks []TaskDefinition) []TaskDefinition {
	return slices.SortedStableFunc(slices.Values(tasks), func(a, b TaskDefinition) int { return a.Seq - b.Seq })
}

// Equal reports whether two definitions of a task say the same. What a task depends on is
// a set; times count in milliseconds, as everywhere.
func (t TaskDefinition) Equal(other TaskDefinition) bool {
	return t.Seq == other.Seq && t.Program == other.Program && t.Priority == other.Priority && t.Description == other.Description &&
		t.MaxAttempts == other.MaxAttempts && t.OnLost == other.OnLost && t.RunIf == other.RunIf &&
		t.RetryDelay.Milliseconds() == other.RetryDelay.Milliseconds() && t.Timeout.Milliseconds() == other.Timeout.Milliseconds() &&
		SameDependencies(t.DependsOn, other.DependsOn) && SameJSON(t.Parameters, other.Parameters)
}

// SameDependencies compares what tasks depend on. nil, the task before, differs from an
// empty list.
func SameDependencies(a, b []int) bool {
	set := func(seqs []int) []int { return slices.Compact(slices.Sorted(slices.Values(seqs))) }
	return (a == nil) == (b == nil) && slices.Equal(set(a), set(b))
}

// SameJSON reports whether two objects of parameters have the same content, as PostgreSQL
// sees it: the order of members does not count, nor how a number is written. nil is {}.
func SameJSON(a, b json.RawMessage) bool {
	if len(a) == 0 {
		a = json.RawMessage("{}")
	}
	if len(b) == 0 {
		b = json.RawMessage("{}")
	}
	if bytes.Equal(a, b) {
		return true
	}
	x, errX := decodeJSON(a)
	y, errY := decodeJSON(b)
	return errX == nil && errY == nil && sameValue(x, y)
}

func decodeJSON(text json.RawMessage) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		other, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, other, sameValue)
	case []any:
		other, ok := b.([]any)
		return ok && slices.EqualFunc(a, other, sameValue)
	case json.Number:
		other, ok := b.(json.Number)
		return ok && (a == other || normalNumber(a) == normalNumber(other))
	}
	return a == b
}

// normalNumber writes a number as its digits without zeros around them, and a power of
// ten: 1.50e3 is 15e2. It never computes it, since 1e999999999 is a number, too.
func normalNumber(n json.Number) string {
	text, exponentText, _ := strings.Cut(strings.ToLower(string(n)), "e")
	exponent := 0
	if exponentText != "" {
		var err error
		if exponent, err = strconv.Atoi(exponentText); err != nil || exponent > math.MaxInt32 || exponent < math.MinInt32 {
			return string(n)
		}
	}
	text, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(text, ".")
	digits := strings.TrimRight(whole+fraction, "0")
	exponent += len(whole) - len(digits) // the power of ten of the last digit
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		return "0"
	}
	if negative {
		digits = "-" + digits
	}
	return digits + "e" + strconv.Itoa(exponent)
}

// TaskProblem is what is wrong with a task's definition.
type TaskProblem struct {
	Seq       int
	Field     string // of the definition, as files call it: program, parameters, runIf
	Parameter string // which one, if it is one of them
	Problem   string
}
