package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever pastes such a line runs curl and nothing else, whatever the others' ids are.
func TestFlow_TextOfOddIDs(t *testing.T) {
	t.Parallel()
	s := nightly()
	s.ID = "a&reboot&$HOME'"
	s.Tasks[2].Asks = true
	text := flowText(s, view{site: "http://h"})
	require.Contains(t, text, "or: curl -X POST 'http://h/api/v1/flows/a&reboot&$HOME%27/rerun'\n")
	require.Contains(t, text, "or: curl -X POST 'http://h/api/v1/flows/a&reboot&$HOME%27/tasks/3/approve'  no: …/cancel\n")
}

// What is printed does what was shown: the same request, without dryRun and with the plan.
func TestEffect_TextOfAPreview(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, body, want string }{
		"a flow":     {"/api/v1/flows/f/rerun", `{"dryRun": true}`, `http://h/flower/api/v1/flows/f/rerun -d '{"plan": "P"}'`},
		"a task":     {"/api/v1/flows/f/tasks/3/skip", `{"dryRun":true}`, `http://h/flower/api/v1/flows/f/tasks/3/skip -d '{"plan": "P"}'`},
		"an odd id":  {"/api/v1/flows/a'&b/hold", `{"dryRun": true}`, `'http://h/flower/api/v1/flows/a'\''&b/hold' -d '{"plan": "P"}'`},
		"old plan":   {"/p", `{"plan": "P", "note": "n", "dryRun": true}`, `http://h/flower/p -d '{"note": "n", "plan": "P"}'`},
		"other case": {"/p", `{"DRYRUN": true, "Plan": "P", "expect": 1}`, `http://h/flower/p -d '{"expect": 1, "plan": "P"}'`},
		"all of it": {
			"/p", "{\"scope\": \"from\", \"from\": 3,\n \"parameters\": {\"n\": 12345678901234567890,\n\"b\": \"<x>\"}, \"dryRun\": true, \"note\": \"n\"}",
			`http://h/flower/p -d '{"scope": "from", "from": 3, "parameters": {"n":12345678901234567890,"b":"<x>"}, "note": "n", "plan": "P"}'`,
		},
		"for the shell and the terminal": {
			"/p", "{\"note\": \"it's \\u0007注\u009b\u202e\U000e0001\", \"dryRun\": true}",
			`http://h/flower/p -d '{"note": "it\u0027s \u0007注\u009b\u202e\udb40\udc01", "plan": "P"}'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Effect{DryRun: true, Changed: 1, Plan: "P", action: "rerun", flow: "f"}
			text := e.text(view{site: "http://h/flower", path: c.path, body: []byte(c.body)})
			require.Equal(t, "rerun f: would change 1 task, 0 stay as they are\ndo it: curl -X POST "+c.want+"\n", text)
		})
	}
}

// A cancel may reach flows that tasks have registered.
func TestEffect_TextNamesOtherFlows(t *testing.T) {
	t.Parallel()
	e := Effect{Changed: 2, action: "cancel", flow: "f", Tasks: []TaskChange{
		{TaskFlowID: "f", TaskExecSeq: 1, Title: "a", From: "running", To: "suspended"},
		{TaskFlowID: "g", TaskExecSeq: 1, Title: "b", From: "waiting", To: "suspended"},
	}}
	require.Equal(t, `cancel f: changed 2 tasks, 0 stay as they are
SEQ  TITLE  FROM     TO         FLOW
  1  a      running  suspended  f
  1  b      waiting  suspended  g
`, e.text(view{}))
}

// What an action is for a task whose status it does not change is said in words.
func TestEffect_TextOfWhatNoStatusSays(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]string{"hold": "running, held if it would wait again", "resume": "running, held no more", "cancel": "cancelled"} {
		e := Effect{Changed: 1, action: action, flow: "f", Tasks: []TaskChange{{TaskFlowID: "f", TaskExecSeq: 1, Title: "a", From: "running", To: "running"}}}
		require.Contains(t, e.text(view{}), "  1  a      running  "+want+"\n")
	}
}

// A secret is in no answer, and *** in its place would be another request. A line that
// fills the screen helps nobody.
func TestEffect_TextOfAPreviewThatIsNotRepeated(t *testing.T) {
	t.Parallel()
	e := Effect{DryRun: true, Changed: 1, Plan: "P"}
	for _, body := range []string{
		`{"dryRun": true, "parameters": {"db": {"password": "s3cret"}}}`,
		`{"dryRun": true, "parameters": {"A": "` + strings.Repeat("a", 10_000) + `"}}`,
	} {
		text := e.text(view{site: "http://h", path: "/p", body: []byte(body)})
		require.Contains(t, text, "do it: the same request, with \"plan\": \"P\" instead of \"dryRun\"\n")
		require.NotContains(t, text, "s3cret")
		require.Less(t, len(text), 200)
	}
}
