package program

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// strict is a program that knows all of its parameters.
var strict = fake{parameters: []Parameter{
	{Name: "what", Type: String, Required: true, Fixed: true},
	{Name: "times", Type: Integer},
	{Name: "words", Type: Strings},
}}

// together is one whose parameters depend on each other.
type together struct{ fake }

func (together) Check(v Values) error {
	if v.String("what") == "" && !v.Open("what") && v.Int("times") > 0 {
		return &flow.InvalidError{Subject: `parameter "times"`, Problem: "it needs what"}
	}
	return nil
}

func TestCheckWorkflow(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	set["Strict"] = strict
	set["Together"] = together{fake{parameters: []Parameter{{Name: "what", Type: String}, {Name: "times", Type: Integer}}}}
	for _, c := range []struct{ program, definition, request, want string }{
		{"Strict", `{"what": "x"}`, ``, ""},
		{"Strict", `{"what": "x", "times": 3}`, `{"times": "4", "for another task": 1}`, ""},
		{"Strict", ``, ``, `parameter "what": it is missing, and must be a string`},
		{"Strict", `{"what": "x", "tmies": 3}`, ``, `parameter "tmies": this program does not know it; it knows times, what, words`},
		{"Strict", `{"what": "x", "times": "soon"}`, ``, `parameter "times": "soon" is not a whole number`},
		// A request's value counts where it replaces the definition's, in both directions.
		{"Strict", `{"what": "x", "times": "soon"}`, `{"times": 1}`, ""},
		{"Strict", `{"what": "x", "times": 1}`, `{"times": "soon"}`, `parameter "times": "soon" is not a whole number`},
		{"Strict", `{}`, `{"what": "x"}`, `parameter "what": only the definition can set it, and the request does`},
		{"Strict", `{"what": "x"}`, `{"what": "x"}`, `parameter "what": only the definition can set it, and the request does`},
		{"Strict", `[]`, ``, `parameters: they are not a JSON object like {"NAME": "value"}`},
		{"NoOp", `{"anything": 1}`, ``, ""},
		{"Test1", `{"anything": 1}`, `{"else": 1}`, ""},
		{"EchoParamTimeSleep", `{"SLEEP_TIME_SECOND": 1, "anything": 1}`, ``, ""},
		{"EchoParamTimeSleep", `{"SLEEP_TIME_SECOND": "soon"}`, ``, `parameter "SLEEP_TIME_SECOND": "soon" is not a number of seconds from 0 to 86400`},
		{"HTTPPostRequest", `{"URL": "http://h/"}`, `{"URL": "http://other/", "BODY": {}}`, ""},
		{"HTTPPostRequest", `{}`, `{"URL": "http://other/"}`, ""},
		{"Unknown", `{"whatever": 1}`, `{"what": 1}`, ""},
		// What an expression comes to is not known yet; what stands beside it is.
		{"Strict", `{"what": "x", "times": "${{ params.n }}"}`, ``, ""},
		{"Strict", `{"what": "x", "times": "\u0024{{ params.n }}"}`, ``, ""},
		{"Strict", `{"what": "x", "words": ["a", "${{ params.n }}"]}`, ``, ""},
		{"Strict", `{"times": "${{ params.n }}"}`, ``, `parameter "what": it is missing, and must be a string`},
		{"Strict", `{"what": 1.5, "times": "${{ params.n }}", "word": 1}`, ``, `parameter "word": this program does not know it; it knows times, what, words`},
		{"Together", `{"times": 1}`, ``, `parameter "times": it needs what`},
		{"Together", `{"times": 0}`, ``, ""},
		{"Together", `{"times": 0}`, `{"times": 2}`, `parameter "times": it needs what`},
		{"Together", `{"times": 1, "what": "${{ params.n }}"}`, ``, ""},
	} {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{
			{Seq: 1, Program: "NoOp"},
			{Seq: 4, Program: c.program, Parameters: json.RawMessage(c.definition)},
		}}
		err := set.CheckWorkflow(w, json.RawMessage(c.request))
		if c.want == "" {
			require.NoError(t, err, "%+v", c)
			continue
		}
		requireInvalid(t, err, `workflow "w": task_seq 4 (`+c.program+`): `+c.want)
	}
}

// An expression can reach secrets: whoever may register must not write one.
func TestCheckWorkflow_RequestsHaveNoExpressions(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "NoOp"}}}
	for _, request := range []string{
		`{"a": "x", "P": "${{ secrets.X }}"}`, `{"P": "\u0024{{ secrets.X }}"}`, `{"P": "$\u007b{ x"}`,
		`{"P": [{"a": ["b ${{ x"]}]}`, `{"P": {"${{ x }}": 1}}`,
	} {
		requireInvalid(t, set.CheckWorkflow(w, json.RawMessage(request)),
			`parameter "P": an expression, ${{ … }}, can stand in a definition only, not in a request`)
	}
	for _, request := range []string{``, `{}`, `{"P": "${ {x}} $\u007bx} \u00e4"}`, `{"P": 1}`} {
		require.NoError(t, set.CheckWorkflow(w, json.RawMessage(request)))
	}
	require.ErrorAs(t, set.CheckWorkflow(w, json.RawMessage(`[]`)), new(*flow.InvalidError))
}

// The rules of a program hold when it runs, too: rows by hand pass by every other check.
func TestRun_ChecksParametersTogether(t *testing.T) {
	t.Parallel()
	p := together{fake{
		parameters: []Parameter{{Name: "what", Type: String}, {Name: "times", Type: Integer}},
		run:        func(context.Context, Input) (json.RawMessage, error) { return nil, errors.New("it was run") },
	}}
	_, err := Set{"P": p}.Run(t.Context(), Attempt{Task: newTask("P", `{"times": 2}`)})
	requireInvalid(t, err, `parameter "times": it needs what`)
}

// guarded is a program that a setting keeps off.
type guarded struct{ fake }

func (guarded) OffWithout() string { return "-allow-guarded" }

func TestEnabled(t *testing.T) {
	t.Parallel()
	set := Set{"A": noOp{}, "G": guarded{}}
	require.Equal(t, []string{"A"}, set.Enabled().Names())
	require.Equal(t, []string{"A", "G"}, set.Names())
	var text strings.Builder
	require.NoError(t, set.List(&text))
	require.Contains(t, text.String(), "G (off: the watcher needs -allow-guarded)\n")
}

func FuzzCheckWorkflow(f *testing.F) {
	set := Default(Config{})
	set["Strict"] = strict
	f.Add("Strict", []byte(`{"what": "x"}`), []byte(`{"times": 1}`))
	f.Add("HTTPPostRequest", []byte(`{"URL": "${{ x }}"}`), []byte(`{"URL": "\u0024{{"}`))
	f.Add("NoOp", []byte(``), []byte(`null`))
	f.Fuzz(func(t *testing.T, program string, definition, request []byte) {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: program, Parameters: definition}}}
		err := set.CheckWorkflow(w, request)
		if err != nil {
			require.ErrorAs(t, err, new(*flow.InvalidError))
			require.Less(t, len(err.Error()), 4<<10+len(program))
		}
	})
}
