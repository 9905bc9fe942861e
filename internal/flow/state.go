package flow

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// State is a flow with all of its tasks, as they stood at one moment: what people and
// the API read. A zero time means that it has not happened.
type State struct {
	Flow

	// Status is one word for the whole flow: running, failed, held, cancelled, queued
	// or finished. It is derived in the database, nowhere else.
	Status string

	StartedAt time.Time // of the first attempt at a task of it
	EndedAt   time.Time // of the last one; zero while something runs, can, or asks

	AsOf time.Time // the database's clock when this was read

	// How it was registered. Empty for rows inserted by hand.
	RegisteredBy string
	Note         string
	Parent       TaskKey // the task that registered it, if one did

	// Recover is the SQL that runs the failed tasks again, ready to be copied. Empty
	// where nothing failed.
	Recover string

	Undefined bool // its workflow has no definition, or none any more

	Tasks []TaskState // by Seq
}

// TaskState is a task as it stands in its row.
type TaskState struct {
	TaskKey
	WorkflowID WorkflowID
	TaskSeq    int   // of its definition
	Parents    []int // Seqs that it depends on

	Program     string
	Description string
	Priority    int             // smaller is more urgent
	Parameters  json.RawMessage // a JSON object; nil is {}

	Status Status
	Reason Reason // why it is suspended; empty if nobody said
	Error  string
	Output json.RawMessage // nil is none

	// Fingerprint is equal for errors that differ only in numbers and ids, as in
	// v_failure_group; of suspended tasks, else empty.
	Fingerprint string

	Attempt     int // 0 until it was claimed
	MaxAttempts int
	WatcherID   string // of the attempt that runs or ran last

	RegisteredAt time.Time
	StartedAt    time.Time // of a task that has paused: before the first pause
	FinishedAt   time.Time
	SuspendedAt  time.Time
	RunAfter     time.Time // not before that: a retry, a delay, a pause
	Paused       bool      // it waits since its program paused, not for a retry
	Why          string    // what its program waits for; empty is a time
	Asks         bool      // it is held until a person approves it; Error is what it asks
	Child        ID        // the flow that it has registered, the last one; empty is none

	Wait   Wait // why it does not run yet; zero unless it waits
	Blocks int  // how many waiting tasks wait for it, directly or not; counted of suspended ones
	Failed int  // superseded attempts of it that had failed
}

// Title is what people call a task: the first line of its description, else its
// program.
func (t TaskState) Title() string { return title(t.Description, t.Program) }

func title(description, program string) string {
	first, _, _ := strings.Cut(description, "\n")
	if first = strings.TrimSpace(first); first != "" {
		return first
	}
	return program
}

// Ended returns when the task ended or was stopped; zero if it is neither.
func (t TaskState) Ended() time.Time {
	switch t.Status {
	case Finished:
		return t.FinishedAt
	case Suspended:
		return t.SuspendedAt
	}
	return time.Time{}
}

// Failing reports whether it is suspended as failed, in whatever way: not held, and not
// cancelled.
func (t TaskState) Failing() bool {
	return t.Status == Suspended && t.Reason != ReasonHeld && t.Reason != ReasonCancelled
}

// Blockers tells of each waiting task that waits for a suspended one, directly or by way of
// others that wait, which that is; of several the first. By their Seqs.
func Blockers(tasks []TaskState) map[int]int {
	waits := make(map[int]bool, len(tasks))
	children := make(map[int][]int, len(tasks))
	for _, t := range tasks {
		waits[t.Seq] = t.Status == Waiting
		for _, p := range t.Parents {
			children[p] = append(children[p], t.Seq)
		}
	}
	blocker := make(map[int]int)
	for _, t := range tasks {
		if t.Status != Suspended {
			continue
		}
		for behind := slices.Clone(children[t.Seq]); len(behind) > 0; {
			seq := behind[len(behind)-1]
			behind = behind[:len(behind)-1]
			if waits[seq] && blocker[seq] == 0 {
				blocker[seq] = t.Seq
				behind = append(behind, children[seq]...)
			}
		}
	}
	return blocker
}

// CountBlocked counts for each suspended task how many waiting ones wait for it, directly
// or not. It needs all tasks of the flow.
func (s *State) CountBlocked() {
	place := make(map[int]int, len(s.Tasks))
	waiting := 0
	for i, t := range s.Tasks {
		place[t.Seq] = i
		if t.Status == Waiting {
			waiting++
		}
	}
	if waiting == 0 {
		return
	}
	children := make([][]int, len(s.Tasks))
	for i, t := range s.Tasks {
		for _, p := range t.Parents {
			if at, known := place[p]; known {
				children[at] = append(children[at], i)
			}
		}
	}
	seen := make([]int, len(s.Tasks)) // by which task it was seen last, plus one
	for i := range s.Tasks {
		if s.Tasks[i].Status != Suspended {
			continue
		}
		for behind := slices.Clone(children[i]); len(behind) > 0; {
			c := behind[len(behind)-1]
			behind = behind[:len(behind)-1]
			if seen[c] == i+1 {
				continue
			}
			seen[c] = i + 1
			if s.Tasks[c].Status == Waiting {
				s.Tasks[i].Blocks++
			}
			behind = append(behind, children[c]...)
		}
	}
}
