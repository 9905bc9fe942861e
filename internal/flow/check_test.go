package flow

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCheck_Text(t *testing.T) {
	t.Parallel()
	rules := []BrokenRule{
		{Rule: "what can go is in the queue", Rows: 1003, Key: TaskKey{Flow: "f\n", Seq: 2}, Detail: "no entry in kr_ready"},
		{Rule: "owned means running", Rows: 1, Key: TaskKey{Flow: "g", Seq: 7}, Detail: "exec_status is 3"},
	}
	for name, c := range map[string]struct {
		check    Check
		unnamed  bool
		wantText string
	}{
		"not yet": {Check{}, false, "v_invariant: not checked yet: a watcher does so within half a minute of its start\n"},
		"empty":   {Check{Done: true, Age: 12300 * time.Millisecond}, false, "v_invariant: empty, checked 12s ago\n"},
		"broken": {Check{Done: true, Age: time.Second, Broken: rules, BrokenFor: 61 * time.Second}, false, `v_invariant: NOT EMPTY for 1m1s, checked 1s ago
  what can go is in the queue: 1003 rows, such as task 2 of flow "f\n": no entry in kr_ready
  owned means running: 1 row, such as task 7 of flow "g": exec_status is 3
  A sweep repairs this within a minute or two, as a rule. If it stays: SELECT * FROM v_invariant;
`},
		"broken, to strangers": {Check{Done: true, Age: time.Second, Broken: rules, BrokenFor: time.Second}, true, `v_invariant: NOT EMPTY for 1s, checked 1s ago
  what can go is in the queue: 1003 rows
  owned means running: 1 row
  A sweep repairs this within a minute or two, as a rule. If it stays: SELECT * FROM v_invariant;
`},
		"repaired": {Check{Done: true, Age: 2 * time.Second, Repaired: rules[1:], RepairedAge: 2 * time.Minute}, false, `v_invariant: empty, checked 2s ago
  Repaired 2m0s ago:
  owned means running: 1 row, such as task 7 of flow "g": exec_status is 3
`},
		"repaired long ago": {Check{Done: true, Age: 2 * time.Second, Repaired: rules, RepairedAge: 2 * time.Hour}, false, "v_invariant: empty, checked 2s ago\n"},
		"nobody looks": {Check{Done: true, Age: time.Hour}, false, `v_invariant: empty, checked 1h0m0s ago
  That is long ago. A watcher checks it every 1m0s here: does one run?
`},
		"a large table": {Check{Done: true, Age: time.Hour, Took: 40 * time.Second}, false, "v_invariant: empty, checked 1h0m0s ago\n"},
	} {
		require.Equal(t, c.wantText, c.check.Text(!c.unnamed), name)
	}
}

// A check takes no more than its share of the time.
func TestCheck_Pause(t *testing.T) {
	t.Parallel()
	require.Equal(t, time.Minute, Check{Took: time.Second}.Pause())
	require.Equal(t, 100*time.Second, Check{Took: 2 * time.Second}.Pause())
}
