package definition

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// fake knows some programs, and finds what a test says.
type fake struct{ problems []flow.TaskProblem }

func (fake) Names() []string                             { return []string{"NoOp", "HTTPRequest", "Command"} }
func (f fake) Problems(flow.Workflow) []flow.TaskProblem { return f.problems }

// parsed reads a text that has no mistakes.
func parsed(t *testing.T, file, text string) []flow.Definition {
	t.Helper()
	sources, problems := Parse(file, []byte(text))
	require.Empty(t, problems)
	var workflows []flow.Definition
	for _, s := range sources {
		workflows = append(workflows, s.Definition)
	}
	return workflows
}

func task(seq int, program string) flow.TaskDefinition {
	return flow.TaskDefinition{Seq: seq, Program: program, MaxAttempts: 1, RetryDelay: 10 * time.Second, OnLost: flow.OnLostRerun}
}

const nightly = `
# A comment.
taskId: nightly
description: |
  What it is for,
  at length.
maxRunningFlows: 1
maxRunningTasks: 2
tasks:
  - program: NoOp
  - seq: 5
    title: load
    description: orders
    program: HTTPRequest
    parameters: &parameters
      url: https://example.com/
      body: {n: 1.50, list: [1, null, true, "x"], day: 2026-11-24, big: 9007199254740993, none: ~}
    dependsOn: [1]
    priority: -3
    maxAttempts: 3
    retryDelay: 1m30s
    timeout: 2.5
    onLost: suspend
    runIf: params.x > 1
  - program: HTTPRequest
    parameters: {<<: *parameters, url: "https://example.org/"}
    dependsOn: []
    description:
`

func wholeDefinition() flow.Definition {
	load := flow.TaskDefinition{
		Seq: 5, Program: "HTTPRequest", Description: "load\norders", DependsOn: []int{1}, Priority: -3, MaxAttempts: 3,
		RetryDelay: 90 * time.Second, Timeout: 2500 * time.Millisecond, OnLost: flow.OnLostSuspend, RunIf: "params.x > 1",
		Parameters: json.RawMessage(`{"url":"https://example.com/","body":{"n":1.50,"list":[1,null,true,"x"],"day":"2026-11-24","big":9007199254740993,"none":null}}`),
	}
	last := task(6, "HTTPRequest")
	last.DependsOn = []int{}
	last.Parameters = json.RawMessage(strings.Replace(string(load.Parameters), "example.com", "example.org", 1))
	return flow.Definition{
		Workflow:    flow.Workflow{ID: "nightly", Tasks: []flow.TaskDefinition{task(1, "NoOp"), load, last}},
		Description: "What it is for,\nat length.\n", MaxRunningFlows: 1, MaxRunningTasks: 2,
	}
}

func TestParse_ReadsEverything(t *testing.T) {
	t.Parallel()
	load := reflect.ValueOf(wholeDefinition().Tasks[1])
	for i := range load.NumField() {
		require.False(t, load.Field(i).IsZero(), "the example lacks %s", load.Type().Field(i).Name)
	}
	got := parsed(t, "a.yaml", nightly)
	require.Len(t, got, 1)
	require.True(t, got[0].Equal(wholeDefinition()), cmp.Diff(wholeDefinition(), got[0]))

	text, err := Format(JSON, wholeDefinition())
	require.NoError(t, err)
	got = parsed(t, "a.json", string(text))
	require.True(t, got[0].Equal(wholeDefinition()), cmp.Diff(wholeDefinition(), got[0]))
}

func TestParse_SeveralInAFile(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"documents": "---\ntaskId: a\ntasks: [{program: P}]\n---\n# nothing\n---\ntaskId: b\ntasks: [{program: P}]\n...\n",
		"a list":    "- {taskId: a, tasks: [{program: P}]}\n- taskId: b\n  tasks:\n  - program: P\n",
		"JSON":      "\ufeff[{\"taskId\": \"a\",\t\"tasks\": [{\"program\": \"P\"}]},\r\n {\"taskId\": \"b\", \"tasks\": [{\"program\": \"P\"}]}]",
		"lines":     "{\"taskId\": \"a\", \"tasks\": [{\"program\": \"P\"}]}\n{\"taskId\": \"b\", \"tasks\": [{\"program\": \"P\"}]}\n",
		"flow":      "[{taskId: a, tasks: [{program: P}]}, {taskId: b, tasks: [{program: P}]}]",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := parsed(t, "-", text)
			require.Len(t, got, 2)
			require.Equal(t, []flow.WorkflowID{"a", "b"}, []flow.WorkflowID{got[0].ID, got[1].ID})
		})
	}
	for _, text := range []string{"", "---\n", "# nothing\n", "[]", "~"} {
		require.Empty(t, parsed(t, "-", text), text)
	}
}

// JSON that YAML would not understand.
func TestParse_JSONAsItIs(t *testing.T) {
	t.Parallel()
	got := parsed(t, "-", "{\n\t\"taskId\": \"\\ud83d\\ude00\\/\",\n\t\"tasks\": [{\"program\": \"P\", \"seq\": 1e0, \"parameters\": {\"a\": 1E400}}]}")
	require.Equal(t, flow.WorkflowID("😀/"), got[0].ID)
	require.Equal(t, `{"a":1E400}`, string(got[0].Tasks[0].Parameters))
}

// problems says what is wrong with a text, a line each.
func problems(t *testing.T, file, text string) string {
	t.Helper()
	sources, problems := Parse(file, []byte(text))
	return append(problems, Check(sources, fake{}, []string{"Custom"})...).Error()
}

func TestProblems_HaveTheirPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"nothing is wrong": {"taskId: a\ntasks:\n- program: Custom\n", ""},
		"unknown keys": {"taskId: a\ntasks:\n  - program: NoOp\n    dependOn: [1]\n    colour: red\n    task_priority: 1\nlimit: 1\nmaxRunningFlow: 1\n", `
f:4:5: a task has no "dependOn": did you mean dependsOn?
f:5:5: a task has no "colour": it can have dependsOn, description, maxAttempts, onLost, parameters, priority, program, retryDelay, runIf, seq, timeout, title
f:6:5: a task has no "task_priority": it is called priority
f:7:1: a workflow has no "limit": it can have description, maxRunningFlows, maxRunningTasks, taskId, tasks
f:8:1: a workflow has no "maxRunningFlow": did you mean maxRunningFlows?`},
		"another word": {"taskId: a\ntasks:\n- {program: NoOp, retries: 1, when: x}\n", `
f:3:19: a task has no "retries": it is called maxAttempts, which counts the first attempt, too
f:3:31: a task has no "when": it is called runIf`},
		"kinds": {"taskId: 7\nmaxRunningFlows: 0\ndescription: [a]\ntasks:\n- program: true\n  seq: 1.5\n  priority: 20\n  parameters: x\n  dependsOn: 1\n  timeout: 0s\n  retryDelay: soon\n  onLost: stop\n  maxAttempts: many\n  title: |\n    a\n    b\n- NoOp\n", `
f:1:9: taskId must be a text, and this is a number: put it in quotes
f:2:18: maxRunningFlows must be a whole number from 1 to 2147483647
f:3:14: description must be a text, and this is a list
f:5:12: program must be a text, and this is a boolean: put it in quotes
f:6:8: seq must be a whole number from 1 to 2147483647
f:7:13: priority must be a whole number from -20 to 19
f:8:15: parameters must be an object, as in {URL: https://example.com}, and this is a string
f:9:14: dependsOn must be a list of the seqs of other tasks, as in [1, 2], and this is a number
f:10:12: timeout must be a time such as 30s, 1h30m or 2d, or a number of seconds, of at least 1ms
f:11:15: retryDelay must be a time such as 30s, 1h30m or 2d, or a number of seconds, of at least 0s
f:12:11: onLost must be rerun or suspend
f:13:16: maxAttempts must be a whole number from 1 to 2147483647
f:14:10: title must be one line; what is longer is a description
f:17:3: a task must be an object, and this is a string`},
		"missing": {"description: x\n---\ntaskId: b\ntasks: []\n---\ntaskId: c\ntasks:\n  - seq: 1\n---\njust text\n", `
f:1:1: the workflow has no taskId: it names it
f:1:1: the workflow has no tasks
f:4:8: a workflow has from 1 to 10000 tasks, and this one has 0
f:8:5: the task has no program: it says what runs
f:10:1: a workflow must be an object, and this is a string`},
		"the graph": {"taskId: a\ntasks:\n- {seq: 1, program: NoOp, dependsOn: [1, 2, 7]}\n- {seq: 2, program: NoOp}\n- {seq: 2, program: NoOp}\n---\ntaskId: b\ntasks:\n- {program: NoOp, dependsOn: [1, 7]}\n---\ntaskId: c\ntasks:\n- {program: NoOp, dependsOn: [3]}\n- program: NoOp\n- program: NoOp\n- {program: NoOp, dependsOn: [5]}\n- program: NoOp\n", `
f:5:9: seq 2 is there twice: the task in line 4 has it, too
f:9:31: task 1 depends on itself
f:9:34: task 1 depends on 7, which does not exist
f:13:30: dependencies form a cycle: 1 → 3 → 2 → 1
f:16:30: dependencies form a cycle: 4 → 5 → 4`},
		"numbers":         {"taskId: a\ntasks: [{program: NoOp, parameters: {a: [1e-999], b: 1e999999999999999999999}}]\n", "\nf:2:42: the number is too large or too exact: put it in quotes"},
		"a hidden secret": {"taskId: a\ntasks: [{program: NoOp, parameters: {n: \"***\", key: {a: 1}, in: [{password: \"***\"}]}}]\n", "\nf:2:77: *** stands here for a secret that was not shown: put that in"},
		"twice": {"taskId: a\ntaskId: b\n", `
f:2:1: "taskId" is there twice`},
		"one workflow twice": {"taskId: a\ntasks: [{program: NoOp}]\n---\ntaskId: a\ntasks: [{program: Nop}]\n", `
f:4:9: workflow "a" is there twice: the other one is in f:1
f:5:19: there is no program "Nop": did you mean NoOp?`},
		"no program like it": {"taskId: a\ntasks:\n- program: Shell\n", `
f:3:12: there is no program "Shell", here or at a watcher; known are Command, Custom, HTTPRequest, NoOp`},
		"no YAML": {"taskId: a\ntasks:\n  - program: 'x\n", `
f:3:1: this is not YAML: found unexpected end of stream`},
		"tabs":         {"taskId: a\ntasks:\n\t- program: x\n", "\nf:3:1: this is not YAML: found character that cannot start any token"},
		"not UTF-8":    {"taskId: é\ntasks: \xff\n", "\nf:2:8: this is not UTF-8"},
		"no decimal":   {"taskId: a\ntasks: [{program: NoOp, parameters: {zip: 010}}]\n", "\nf:2:43: \"010\": write a number in decimal, as in 16 or 0.5, and a text in quotes"},
		"an odd tag":   {"taskId: a\ntasks: !!python/object [{}]\n", "\nf:2:8: the tag \"!!python/object\" has no meaning here"},
		"no alias":     {"taskId: *a\n", "\nf:1:1: this is not YAML: unknown anchor 'a' referenced"},
		"within":       {"taskId: &a [*a]\n", "\nf:1:9: values are nested more than 100 deep here"},
		"a bomb":       {"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n", "\nf:1:14: there are more than 500000 values"},
		"a NUL":        {"taskId: \"a\\0\"\ntasks: [{program: NoOp, parameters: {x: [\"\\0\"]}}]\n", "\nf:1:9: taskId has the character U+0000, which no text in the database can have\nf:2:42: parameters have the character U+0000, which no text in the database can have"},
		"not JSON":     {"{\"taskId\": \"a\",\n  \"tasks\": [{\"program\": }]}", "\nf:2:25: this is not JSON: invalid character '}' looking for beginning of value"},
		"half of JSON": {"{\"taskId\": \"a\",\n  \"tasks\": [", "\nf:2:13: this is not JSON: the text ends within a value"},
		"JSON, twice":  {"{\"taskId\": \"é\", \"taskId\": \"a\"}", "\nf:1:17: \"taskId\" is there twice"},
		"JSON, kinds":  {"{\"taskId\": \"a\",\n  \"tasks\": [{\"program\": \"NoOp\",\n \"timeout\" : \"1 h\"}]}", "\nf:3:14: timeout must be a time such as 30s, 1h30m or 2d, or a number of seconds, of at least 1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, strings.TrimPrefix(c.want, "\n"), problems(t, "f", c.text))
		})
	}
}

func TestParseOne_KnowsItsName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"tasks: [{program: P}]":            "",
		"taskId: a\ntasks: [{program: P}]": "",
		"taskId: b\ntasks: [{program: P}]": `f:1:9: this is another workflow than "a", which was asked for`,
		"":                                 "f:1:1: there is no workflow",
		"tasks: [{program: P}]\n---\ntaskId: b\ntasks: [{program: P}]": `f:3:1: there is a second workflow, and only "a" was asked for`,
		"[":   "f:1:1: this is not YAML: did not find expected node content",
		`"a"`: "f:1:1: a workflow must be an object, and this is a string",
	} {
		s, problems := ParseOne("f", []byte(text), "a")
		require.Equal(t, want, problems.Error(), text)
		if want == "" {
			require.Equal(t, flow.WorkflowID("a"), s.ID)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"dryRun", "expect", "from", "note", "plan", "scope"}
	for word, want := range map[string]string{
		"dryrun": "dryRun", "dry_run": "dryRun", "scop": "scope", "form": "from", "Note": "note", "everything": "", "": "", "x": "", "expected": "expect",
	} {
		require.Equal(t, want, Nearest(word, slices.Values(known)), word)
	}
}
