package definition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/d-tsuji/flower/internal/flow"
)

// words are what YAML and people stumble over.
var words = []string{
	"", " ", "a", "a b", " a", "a ", "a\n", "\na", "a\n\nb\n", "a \nb", "a\n b", "a\n\tb", "\ta", "a\tb", "- a", "-", "---", "...", "a: b",
	"a #b", "#", "null", "~", "true", "yes", "No", "on", "1", "1.0", "-0", "1e3", "1E400", "010", "0x10", "0o7", "1_000", ".5", "+1", ".inf",
	".nan", "2026-11-24", "2026-11-24T10:00:00Z", "12:30", "<<", "=", "*a", "&a", "!a", "%a", "@a", "`a", "'", "\"", "\\", "[", "]", "{", "}",
	",", "|", ">", "?", ": ", "é", "日本", "😀", "\u2028", "\u0085", "\ufeff", "\u00a0", "\x01", "\x7f", "a\r\nb", "\r", "\u200b",
	"${{ params.x }}", "a\n\n", "\n", "\n\n", "x\n  y\n z", "taskId", "key", strings.Repeat("long ", 100), strings.Repeat("x", 200),
}

func anyText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom(words), rapid.StringN(0, 12, -1),
		rapid.Map(rapid.SliceOfN(rapid.SampledFrom(words), 2, 4), func(s []string) string { return strings.Join(s, "") }))
}

// storable is text that PostgreSQL can keep.
func storable() *rapid.Generator[string] {
	return rapid.Map(anyText(), func(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "0") })
}

func anyJSON(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 6
		if depth == 0 {
			kinds = 4
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]any{nil, true, false}).Draw(t, "word")
		case 1:
			return json.Number(rapid.SampledFrom([]string{
				"0", "-0", "1.50", "1e3", "1E-7", "-12345678901234567890", "0.1", "9007199254740993", "1e400", "100", "3",
			}).Draw(t, "number"))
		case 2, 3:
			return storable().Draw(t, "text")
		case 4:
			return rapid.SliceOfN(anyJSON(depth-1), 0, 4).Draw(t, "list")
		}
		return rapid.MapOfN(storable(), anyJSON(depth-1), 0, 4).Draw(t, "object")
	})
}

func anyTask(seq int) *rapid.Generator[flow.TaskDefinition] {
	return rapid.Custom(func(t *rapid.T) flow.TaskDefinition {
		parameters, err := json.Marshal(rapid.MapOfN(storable(), anyJSON(3), 0, 4).Draw(t, "parameters"))
		require.NoError(t, err)
		d := flow.TaskDefinition{
			Seq: seq, Program: name(t), Priority: rapid.IntRange(-20, 19).Draw(t, "priority"), Parameters: parameters,
			Description: storable().Draw(t, "description"), MaxAttempts: rapid.IntRange(1, 3).Draw(t, "attempts"),
			RetryDelay: anyTime().Draw(t, "delay"), Timeout: anyTime().Draw(t, "timeout"), RunIf: storable().Draw(t, "run if"),
			OnLost: rapid.SampledFrom([]flow.OnLost{flow.OnLostRerun, flow.OnLostSuspend}).Draw(t, "on lost"),
		}
		if rapid.Bool().Draw(t, "not a chain") {
			d.DependsOn = append([]int{}, rapid.SliceOfN(rapid.IntRange(1, 5), 0, 20).Draw(t, "depends")...)
		}
		return d
	})
}

func name(t *rapid.T) string {
	runes := []rune("P" + storable().Draw(t, "name"))
	return string(runes[:min(len(runes), maxProgram)])
}

func anyTime() *rapid.Generator[time.Duration] {
	return rapid.OneOf(rapid.SampledFrom([]time.Duration{0, time.Millisecond, 10 * time.Second, 90 * time.Minute, 49 * time.Hour}),
		rapid.Map(rapid.Int64Range(0, 9e12), func(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }))
}

func anyDefinition() *rapid.Generator[flow.Definition] {
	return rapid.Custom(func(t *rapid.T) flow.Definition {
		d := flow.Definition{
			Description:     storable().Draw(t, "description"),
			MaxRunningFlows: rapid.SampledFrom([]int{0, 0, 1, math.MaxInt32}).Draw(t, "flows"),
			MaxRunningTasks: rapid.SampledFrom([]int{0, 0, 7}).Draw(t, "tasks"),
		}
		d.ID = flow.WorkflowID(name(t))
		for _, seq := range rapid.SliceOfNDistinct(rapid.IntRange(1, 1000), 1, 4, rapid.ID).Draw(t, "seqs") {
			d.Tasks = append(d.Tasks, anyTask(seq).Draw(t, "task"))
		}
		return d
	})
}

// What is written is read as it was, in both formats, alone and with others.
func TestFormat_RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		workflows := rapid.SliceOfN(anyDefinition(), 1, 3).Draw(t, "workflows")
		format := rapid.SampledFrom([]string{YAML, JSON}).Draw(t, "format")
		text, err := Format(format, workflows...)
		require.NoError(t, err)
		sources, problems := Parse("f", text)
		require.Empty(t, problems, "%s", text)
		require.Len(t, sources, len(workflows), "%s", text)
		for i, s := range sources {
			require.True(t, s.Equal(workflows[i]), "%s\n%s", text, cmp.Diff(workflows[i], s.Definition))
			again, err := Format(format, s.Definition)
			require.NoError(t, err)
			once, err := Format(format, workflows[i])
			require.NoError(t, err)
			require.Equal(t, string(once), string(again))
		}
	})
}

// A difference is told exactly where there is one.
func TestDiff_IsEmptyWhereTwoAreEqual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := anyDefinition().Draw(t, "a")
		b := a
		b.Tasks = slices.Clone(a.Tasks)
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			other := anyDefinition().Draw(t, "other")
			i := rapid.IntRange(0, len(b.Tasks)-1).Draw(t, "task")
			to, from := &b.Tasks[i], other.Tasks[0]
			switch rapid.IntRange(0, 13).Draw(t, "field") {
			case 0:
				b.Description = other.Description
			case 1:
				b.MaxRunningFlows = other.MaxRunningFlows
			case 2:
				b.MaxRunningTasks = other.MaxRunningTasks
			case 3:
				to.Program = from.Program
			case 4:
				to.Priority = from.Priority
			case 5:
				to.Parameters = from.Parameters
			case 6:
				to.Description = from.Description
			case 7:
				to.MaxAttempts = from.MaxAttempts
			case 8:
				to.RetryDelay = from.RetryDelay
			case 9:
				to.Timeout = from.Timeout
			case 10:
				to.OnLost = from.OnLost
			case 11:
				to.RunIf = from.RunIf
			case 12:
				to.DependsOn = from.DependsOn
			case 13:
				b.Tasks = append(b.Tasks, anyTask(2000+len(b.Tasks)).Draw(t, "more"))
			}
		}
		changes, err := Diff(a, b)
		require.NoError(t, err)
		require.Equal(t, a.Equal(b), len(changes) == 0, "%v\n%s", changes, cmp.Diff(a, b))
		back, err := Diff(b, a)
		require.NoError(t, err)
		require.Len(t, back, len(changes))
	})
}

// compiled is the schema, for a validator.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{}) // nothing is loaded from anywhere
	require.NoError(t, c.AddResource("workflow.schema.json", document))
	s, err := c.Compile("workflow.schema.json")
	require.NoError(t, err)
	return s
}

// oneOf draws a value that is right, or may be wrong.
func oneOf(t *rapid.T, mistakes bool, right ...any) any {
	if !mistakes || rapid.IntRange(0, 9).Draw(t, "right") > 0 {
		return rapid.SampledFrom(right).Draw(t, "value")
	}
	return rapid.SampledFrom([]any{
		nil, true, "", "x", "a\nb", "a\x00b", 0, 1, -21, 20, 1.5, json.Number("1.0"), json.Number("2e0"), json.Number("1e400"), 1 << 31,
		[]any{},
		[]any{1},
		[]any{"x"},
		[]any{0},
		map[string]any{},
		map[string]any{"a": 1},
		"1s", "1 s", "-1s", "1.5h", 9e9, 9e9 + 1,
		strings.Repeat("ü", 256), strings.Repeat("ü", 257),
	}).Draw(t, "any value")
}

func anyDocument(t *rapid.T) any {
	mistakes := rapid.Bool().Draw(t, "mistakes")
	object := func(fields map[string][]any) map[string]any {
		o := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(fields)) {
			if rapid.IntRange(0, 2).Draw(t, key) > 0 {
				o[key] = oneOf(t, mistakes, fields[key]...)
			}
		}
		if mistakes && rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
			o["unknown"] = 1
		}
		return o
	}
	n := 0
	workflow := func() any {
		w := object(map[string][]any{
			"description": {"x", ""}, "maxRunningFlows": {1, 7}, "maxRunningTasks": {1, math.MaxInt32},
		})
		n++
		if !mistakes || rapid.IntRange(0, 9).Draw(t, "id") > 0 {
			w["taskId"] = oneOf(t, mistakes, fmt.Sprintf("w%d", n))
		}
		tasks := []any{}
		for range rapid.IntRange(1, 3).Draw(t, "tasks") {
			task := object(map[string][]any{
				"title": {"x", " "}, "description": {"", "x\ny"}, "parameters": {map[string]any{}, map[string]any{"a": nil}},
				"dependsOn": {[]any{}, []any{1}, []any{1, 1}}, "priority": {-20, 0, 19}, "maxAttempts": {1, 5},
				"retryDelay": {"1s", "1h30m", "500ms", "2d", "1.5s", 0, 2.5}, "timeout": {"1s", 1}, "onLost": {"rerun", "suspend"}, "runIf": {"true"},
			})
			if !mistakes || rapid.IntRange(0, 9).Draw(t, "program") > 0 {
				task["program"] = oneOf(t, mistakes, "NoOp")
			}
			tasks = append(tasks, task)
		}
		w["tasks"] = oneOf(t, mistakes, tasks)
		return w
	}
	switch rapid.IntRange(0, 5).Draw(t, "shape") {
	case 0:
		return []any{workflow(), workflow()}
	case 1:
		return oneOf(t, mistakes, workflow())
	}
	return workflow()
}

// The schema takes what the parser takes. What no schema can say is left out here: a
// timeout of less than a millisecond, U+0000 in parameters, seqs that are there twice.
func TestSchema_AgreesWithTheParser(t *testing.T) {
	t.Parallel()
	schema := compiled(t)
	taken, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		document := anyDocument(t)
		if document == nil { // an empty file
			return
		}
		text, err := json.Marshal(document)
		require.NoError(t, err)
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err)
		_, problems := Parse("f.json", text)
		problems = slices.DeleteFunc(problems, func(p Problem) bool {
			return strings.HasPrefix(p.Message, "timeout") && (strings.Contains(string(text), `"timeout":0`) || strings.Contains(string(text), `"timeout":"0`))
		})
		err = schema.Validate(instance)
		require.Equal(t, err == nil, len(problems) == 0, "%s\nschema: %v\nparser: %v", text, err, problems)
		if err == nil {
			taken++
		} else {
			refused++
		}
	})
	require.Greater(t, taken, 10)
	require.Greater(t, refused, 10)
}

// Every field of the format is in the schema, and described there.
func TestSchema_HasEveryField(t *testing.T) {
	t.Parallel()
	w := wholeDefinition()
	n, err := workflowNode(w)
	require.NoError(t, err)
	var schema struct {
		Defs map[string]struct {
			Properties map[string]struct{ Description string }
		} `json:"$defs"`
	}
	require.NoError(t, json.Unmarshal(Schema, &schema))
	for _, m := range n.members {
		_, there := schema.Defs["workflow"].Properties[m.key.text]
		require.True(t, there, m.key.text)
	}
	full, err := taskNode(w.Tasks[1], true)
	require.NoError(t, err)
	var fields []string
	for _, m := range full.members {
		fields = append(fields, m.key.text)
		require.NotEmpty(t, schema.Defs["task"].Properties[m.key.text].Description, m.key.text)
	}
	require.ElementsMatch(t, fields, slices.Collect(maps.Keys(schema.Defs["task"].Properties)))
}

// No text makes it panic, and every problem has a place within it. What has none can be
// written, and read again.
func FuzzParse(f *testing.F) {
	f.Add("f.yaml", []byte(nightly))
	f.Add("f.json", []byte(`{"taskId": "a", "tasks": [{"program": "P", "parameters": {"a": [1e5, null]}}]}`))
	f.Add("-", []byte("a: &a [*a]\n<<: *a\n? [b]\n: c\n--- |\n x\n"))
	f.Add("-", []byte("[{\"taskId\": 1, \"taskId\": 2}, {}]\n{"))
	f.Add("-", []byte("taskId: a\ntasks:\n- &t {program: P, seq: 1, dependsOn: [2]}\n- {<<: [*t], seq: 2, timeout: 1h, retryDelay: 0.1}\n"))
	f.Fuzz(func(t *testing.T, file string, text []byte) {
		sources, problems := Parse(file, text)
		lines := bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte("\r")) + 2
		for _, p := range append(problems, Check(sources, fake{}, nil)...) {
			require.Equal(t, file, p.File)
			require.True(t, p.Line > 0 && p.Line <= lines && p.Column > 0, "%s", p)
			require.Less(t, len(p.Message), 2000)
		}
		if len(problems) > 0 {
			return
		}
		for _, s := range sources {
			for _, format := range []string{YAML, JSON} {
				written, err := Format(format, s.Definition)
				require.NoError(t, err)
				again, problems := Parse("again", written)
				require.Empty(t, problems, "%s", written)
				require.Len(t, again, 1, "%s", written)
				require.True(t, s.Equal(again[0].Definition), "%s", written)
			}
		}
	})
}
