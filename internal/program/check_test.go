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

// Of the tasks of a flow nobody can tell which parameters came with a request.
func TestCheckWorkflow_Merged(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	set["Strict"] = strict
	for _, c := range []struct{ program, parameters, request, want string }{
		{"Strict", `{"what": "x", "day": "Monday"}`, `{"times": 1}`, ""},
		{"Wait", `{"for": "1s", "day": "Monday"}`, `{"another": 1}`, ""},
		{"Unknown", `{"day": "Monday"}`, `{"another": 1}`, ""},
		{"NoOp", ``, `{"another": 1}`, ""},
		{"Strict", `{"what": "x", "day": "Monday"}`, `{"what": "y"}`, `parameter "what": only the definition can set it, and the request does`},
		{"Strict", `{"what": "x", "day": "Monday", "times": "soon"}`, `{"another": 1}`, `parameter "times": "soon" is not a whole number`},
		{"Strict", `{"day": "Monday"}`, `{"times": 1}`, `parameter "what": it is missing, and must be a string`},
		{"Strict", `[]`, `{"times": 1}`, `parameters: they are not a JSON object like {"NAME": "value"}`},
		{"Strict", `{"what": "${{ secrets.TOKEN }}", "day": "Monday"}`, `{"times": 1}`, `parameter "times": only the definition can set it, and the request does (the task uses secrets, and a request must not say what becomes of them)`},
	} {
		w := flow.Workflow{ID: "w", Merged: true, Tasks: []flow.TaskDefinition{{Seq: 4, Program: c.program, Parameters: json.RawMessage(c.parameters)}}}
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
	requireInvalid(t, set.CheckWorkflow(w, json.RawMessage(`{"${{ x }}": 1}`)),
		`parameter "${{ x }}": an expression, ${{ … }}, can stand in a definition only, not in a request`)
	for _, request := range []string{``, `{}`, `{"P": "${ {x}} $\u007bx} \u00e4"}`, `{"P": 1}`} {
		require.NoError(t, set.CheckWorkflow(w, json.RawMessage(request)))
	}
	require.ErrorAs(t, set.CheckWorkflow(w, json.RawMessage(`[]`)), new(*flow.InvalidError))
}

// What can be found out about expressions before there is any data is.
func TestCheckWorkflow_Expressions(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	set["Strict"], set["Shows"] = strict, shows
	none := []int{}
	// 1 → 2 → 4 → 5, and 3 beside them, which 5 comes after, too.
	for _, c := range []struct{ program, parameters, runIf, want string }{
		{"Strict", `{"what": "${{ outputs[1].x }} ${{ outputs[2] }}"}`, "outputs[2].n > 0", ""},
		{"Strict", `{"what": "${{ outputs[3] }}"}`, "", `parameter "what": outputs[3]: no task with that task_seq comes before this one`},
		{"Strict", `{"what": "${{ outputs[4] }}"}`, "", `parameter "what": outputs[4]: no task with that task_seq comes before this one`},
		{"Strict", `{"what": "x", "words": ["${{ outputs[5] }}"]}`, "", `parameter "words": outputs[5]: no task with that task_seq comes before this one`},
		{"Strict", `{"what": "${{ outputs[9].x + 1 }}"}`, "", `parameter "what": outputs[9]: no task with that task_seq comes before this one`},
		{"Strict", `{"what": "x"}`, "outputs[5] == nil", `run_if: outputs[5]: no task with that task_seq comes before this one`},
		{"Strict", `{"what": "x"}`, "parms.x", `run_if: ${{ parms.x }}: unknown name parms (line 1, column 1)`},
		{"Strict", `{"what": "x"}`, "secrets.A == ''", `run_if: ${{ secrets.A == '' }}: unknown name secrets (line 1, column 1)`},
		{"Strict", `{"what": "x"}`, "1 + 1", `run_if: ${{ 1 + 1 }}: it is neither true nor false, but a number`},
		{"Strict", `{"what": "${{ nope }}"}`, "", `parameter "what": ${{ nope }}: unknown name nope (line 1, column 1)`},
		{"Strict", `{"what": "a ${{ b"}`, "", `parameter "what": ${{ b }}: it has no end, }}`},
		{"Strict", `{"what": "${{ secrets['a/b'] }}"}`, "", `parameter "what": ${{ secrets['a/b'] }}: secrets needs a name of letters, digits and _, as in secrets.TOKEN`},
		{"Strict", `{"what": "${{ secrets.ANY }}"}`, "", ""}, // which there are, the watchers know
		{"Shows", `{"shown": "${{ secrets.ANY }}"}`, "", `parameter "shown": it is for all to see, and cannot have a secret in it`},
		{"NoOp", `{"anything": "${{ ) }}"}`, "", `parameter "anything": ${{ ) }}: unexpected token Bracket(")") (line 1, column 1)`},
		{"Unknown", `{"any": "${{ x }}"}`, "", `parameter "any": ${{ x }}: unknown name x (line 1, column 1)`},
		{"Unknown", `{"any": "${{ outputs[2] }}"}`, "x", `run_if: ${{ x }}: unknown name x (line 1, column 1)`},
	} {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{
			{Seq: 5, Program: "NoOp", DependsOn: []int{4, 3}, Parameters: json.RawMessage(`{"x": "${{ [outputs[1], outputs[2], outputs[3], outputs[4]] }}"}`)},
			{Seq: 1, Program: "NoOp"},
			{Seq: 2, Program: "NoOp"},
			{Seq: 3, Program: "NoOp", DependsOn: none},
			{Seq: 4, Program: c.program, Parameters: json.RawMessage(c.parameters), RunIf: c.runIf, DependsOn: []int{2}},
		}}
		err := set.CheckWorkflow(w, nil)
		if c.want == "" {
			require.NoError(t, err, "%+v", c)
			continue
		}
		requireInvalid(t, err, `workflow "w": task_seq 4 (`+c.program+`): `+c.want)
	}
}

// Who may register must not have a secret sent to a place of his choice.
func TestCheckWorkflow_RequestsDoNotTouchWhatUsesSecrets(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	const refused = `only the definition can set it, and the request does (the task uses secrets, and a request must not say what becomes of them)`
	for _, c := range []struct{ program, definition, request, want string }{
		{"HTTPPostRequest", `{"URL": "http://h/", "BODY": {"token": "${{ secrets.TOKEN }}"}}`, `{"URL": "http://evil/"}`, `parameter "URL": ` + refused},
		{"HTTPPostRequest", `{"URL": "http://h/${{ secrets.TOKEN }}"}`, `{"BODY": 1}`, `parameter "BODY": ` + refused},
		{"HTTPPostRequest", `{"URL": "http://h/${{ secrets.TOKEN }}"}`, `{"URL": "http://h/"}`, `parameter "URL": ` + refused},
		{"HTTPPostRequest", `{"URL": "http://h/${{ secrets.TOKEN }}"}`, `{"OTHER": 1}`, ""}, // for another task
		{"HTTPPostRequest", `{"URL": "http://h/${{ secrets.TOKEN }}"}`, `{}`, ""},
		{"HTTPPostRequest", `{"URL": "http://h/${{ params.path }}"}`, `{"URL": "http://h/", "path": "x"}`, ""},
		// Nobody here knows what such a program does with what.
		{"Unknown", `{"a": "${{ secrets.TOKEN }}"}`, `{"z": 1, "b": 1}`, `parameter "b": ` + refused},
		{"Unknown", `{"a": "${{ secrets.TOKEN }}"}`, ``, ""},
		{"Unknown", `{"a": "x"}`, `{"b": 1}`, ""},
	} {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: c.program, Parameters: json.RawMessage(c.definition)}}}
		err := set.CheckWorkflow(w, json.RawMessage(c.request))
		if c.want == "" {
			require.NoError(t, err, "%+v", c)
			continue
		}
		requireInvalid(t, err, `workflow "w": task_seq 1 (`+c.program+`): `+c.want)
	}
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
	f.Add("Strict", []byte(`{"what": "x"}`), []byte(`{"times": 1}`), "")
	f.Add("HTTPPostRequest", []byte(`{"URL": "${{ x }}"}`), []byte(`{"URL": "\u0024{{"}`), "outputs[1].x == ''")
	f.Add("NoOp", []byte(``), []byte(`null`), "true")
	f.Fuzz(func(t *testing.T, program string, definition, request []byte, runIf string) {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: program, Parameters: definition, RunIf: runIf}}}
		err := set.CheckWorkflow(w, request)
		if err != nil {
			require.ErrorAs(t, err, new(*flow.InvalidError))
			require.Less(t, len(err.Error()), 8<<10+len(program))
		}
	})
}
