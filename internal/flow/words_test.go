package flow

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[Status]struct {
		number    int
		word      string
		satisfies bool
	}{
		Waiting:   {0, "waiting", false},
		Running:   {1, "running", false},
		Suspended: {2, "suspended", false},
		Finished:  {3, "finished", true},
		Ignored:   {9, "ignored", true},
		4:         {4, "status 4", false},
		-1:        {-1, "status -1", false},
	} {
		require.Equal(t, want.number, int(status))
		require.Equal(t, want.word, status.String())
		require.Equal(t, want.satisfies, status.Satisfies(), status)
	}
}

func TestTaskKey(t *testing.T) {
	t.Parallel()
	require.Equal(t, "test_flow_1/3", TaskKey{Flow: "test_flow_1", Seq: 3}.String())
}

// The key is the same for each attempt at a task, and another one after a reset by hand.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	task := Task{TaskKey: TaskKey{Flow: "f", Seq: 2}, Attempt: 1}
	first := task.IdempotencyKey()
	task.Attempt, task.ClaimID = 2, "another"
	require.Equal(t, first, task.IdempotencyKey())
	task.AttemptBase = 2
	require.NotEqual(t, first, task.IdempotencyKey())
	require.NotEqual(t, first, Task{TaskKey: TaskKey{Flow: "f", Seq: 22}}.IdempotencyKey())
}

func TestTitle(t *testing.T) {
	t.Parallel()
	for description, want := range map[string]string{
		"":                              "Test1",
		"   \nsecond":                   "Test1",
		"invoice":                       "invoice",
		"  invoice: \nwhat it is about": "invoice:",
	} {
		require.Equal(t, want, TaskState{Program: "Test1", Description: description}.Title())
	}
}

func TestEnded(t *testing.T) {
	t.Parallel()
	finished, suspended := time.Unix(1, 0), time.Unix(2, 0)
	for status, want := range map[Status]time.Time{
		Waiting: {}, Running: {}, Ignored: {}, Finished: finished, Suspended: suspended,
	} {
		require.Equal(t, want, TaskState{Status: status, FinishedAt: finished, SuspendedAt: suspended}.Ended(), status)
	}
}

func TestInvalidError(t *testing.T) {
	t.Parallel()
	require.EqualError(t, &InvalidError{Subject: `parameter "URL"`, Problem: "is missing"}, `parameter "URL": is missing`)
}

func TestBlockers(t *testing.T) {
	t.Parallel()
	task := func(seq int, s Status, parents ...int) TaskState {
		return TaskState{TaskKey: TaskKey{Seq: seq}, Status: s, Parents: parents}
	}
	require.Equal(t, map[int]int{3: 1, 4: 1, 6: 5}, Blockers([]TaskState{
		task(1, Suspended), task(2, Finished, 1), task(3, Waiting, 1, 2), task(4, Waiting, 3, 5),
		task(5, Suspended), task(6, Waiting, 5), task(7, Running, 4), task(8, Waiting, 7), task(9, Waiting),
	}), "who waits for what runs may go")
	require.Equal(t, map[int]int{2: 1, 3: 1}, Blockers([]TaskState{
		task(1, Suspended), task(2, Waiting, 1, 3), task(3, Waiting, 2),
	}), "a cycle has an end")
}
