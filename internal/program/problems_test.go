package program

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestProblems_TellsAllAtOnce(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	set["Strict"] = strict
	set["Together"] = together{fake{parameters: []Parameter{{Name: "what", Type: String}, {Name: "times", Type: Integer}}}}
	for _, c := range []struct {
		program, parameters, runIf string
		want                       []string
	}{
		{"Strict", `{"what": "x", "times": 3}`, "", nil},
		{"Strict", ``, "", []string{`parameters what parameter "what": it is missing, and must be a string`}},
		{"Strict", `{"what": {}, "times": "soon", "tmies": 1, "words": 7, "x": 1}`, "params.a >", []string{
			`runIf  runIf: ${{ params.a > }}: it ends too early`,
			`parameters tmies parameter "tmies": this program does not know it`,
			`parameters x parameter "x": this program does not know it`,
			`parameters what parameter "what": an object is not a string`,
			`parameters times parameter "times": "soon" is not a whole number`,
			`parameters words parameter "words": a number is not a JSON array of strings`,
		}},
		{"Strict", `{"what": "${{ outputs[7] }}", "times": "${{ nope }}"}`, "", []string{
			`parameters times parameter "times": `,
			`parameters what parameter "what": outputs[7]: no task with that task_seq comes before this one`,
		}},
		{"Together", `{"times": 1}`, "", []string{`parameters times parameter "times": it needs what`}},
		// A request may say where to send it, unless the task has secrets.
		{"HTTPPostRequest", `{}`, "", nil},
		{"HTTPPostRequest", `{"BODY": "${{ secrets.A }}"}`, "", []string{`parameters URL parameter "URL": it is missing`}},
		{"EchoParamTimeSleep", ``, "", nil},
		{"Unknown", `{"a": "${{ nope }}"}`, "", []string{`parameters a parameter "a": `}},
		{"Unknown", `{"a": 1}`, "", nil},
		{"NoOp", `[]`, "", []string{`parameters  parameters: they are not a JSON object`}},
	} {
		problems := set.Problems(flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{
			{Seq: 4, Program: c.program, Parameters: json.RawMessage(c.parameters), RunIf: c.runIf},
		}})
		require.Len(t, problems, len(c.want), "%+v: %+v", c, problems)
		for i, p := range problems {
			require.Equal(t, 4, p.Seq)
			got := fmt.Sprintf("%s %s %s", p.Field, p.Parameter, p.Problem)
			require.Contains(t, got, c.want[i], "%+v", c)
		}
	}
	require.Empty(t, set.Problems(flow.Workflow{}), "the graph must be right")
}
