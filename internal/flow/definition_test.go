package flow

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSameJSON(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		a, b string
		same bool
	}{
		"nothing":              {"", "{}", true},
		"order and blanks":     {`{"a":1,"b":[1,{"c":null}]}`, `{ "b": [1, {"c": null}], "a": 1 }`, true},
		"order of an array":    {`{"a":[1,2]}`, `{"a":[2,1]}`, false},
		"numbers":              {`{"a":1.50e3}`, `{"a":1500}`, true},
		"a power of ten":       {`{"a":1e2}`, `{"a":100.00}`, true},
		"small":                {`{"a":0.0012}`, `{"a":12e-4}`, true},
		"zero":                 {`{"a":-0.0}`, `{"a":0}`, true},
		"zeros that count":     {`{"a":100}`, `{"a":1000}`, false},
		"sign":                 {`{"a":-1}`, `{"a":1}`, false},
		"digits beyond floats": {`{"a":9007199254740993}`, `{"a":9007199254740992}`, false},
		"too large to compute": {`{"a":1e999999999}`, `{"a":10e999999998}`, true},
		"text and number":      {`{"a":"1"}`, `{"a":1}`, false},
		"null and absent":      {`{"a":null}`, `{}`, false},
		"escapes":              {`{"a":"\u00e9"}`, `{"a":"é"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.same, SameJSON(json.RawMessage(c.a), json.RawMessage(c.b)))
			require.Equal(t, c.same, SameJSON(json.RawMessage(c.b), json.RawMessage(c.a)))
		})
	}
}

func TestDefinition_Equal(t *testing.T) {
	t.Parallel()
	definition := func() Definition {
		return Definition{
			Workflow: Workflow{ID: "w", Tasks: []TaskDefinition{
				{Seq: 1, Program: "P", MaxAttempts: 1, RetryDelay: time.Second, OnLost: OnLostRerun},
				{Seq: 2, Program: "P", MaxAttempts: 1, RetryDelay: time.Second, OnLost: OnLostRerun, DependsOn: []int{1}},
			}},
		}
	}
	require.True(t, definition().Equal(definition()))
	other := definition()
	other.Tasks[0], other.Tasks[1] = other.Tasks[1], other.Tasks[0]
	other.Tasks[0].DependsOn = []int{1, 1}
	other.Tasks[1].RetryDelay += time.Microsecond
	other.Version = 7
	require.True(t, definition().Equal(other), "order, repetition, less than a millisecond")

	// A field that nobody thought of here.
	for i := range reflect.TypeFor[TaskDefinition]().NumField() {
		other := definition()
		field := reflect.ValueOf(&other.Tasks[0]).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString("other")
		case reflect.Int, reflect.Int64:
			field.SetInt(int64(7 * time.Second))
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		default:
			t.Fatalf("what is another %s?", field.Kind())
		}
		require.False(t, definition().Equal(other), reflect.TypeFor[TaskDefinition]().Field(i).Name)
	}

	for name, change := range map[string]func(d *Definition){
		"id":           func(d *Definition) { d.ID = "x" },
		"description":  func(d *Definition) { d.Description = "x" },
		"flows":        func(d *Definition) { d.MaxRunningFlows = 1 },
		"tasks":        func(d *Definition) { d.MaxRunningTasks = 1 },
		"fewer":        func(d *Definition) { d.Tasks = d.Tasks[:1] },
		"seq":          func(d *Definition) { d.Tasks[1].Seq = 3 },
		"program":      func(d *Definition) { d.Tasks[0].Program = "Q" },
		"priority":     func(d *Definition) { d.Tasks[0].Priority = 1 },
		"parameters":   func(d *Definition) { d.Tasks[0].Parameters = json.RawMessage(`{"A":1}`) },
		"chain":        func(d *Definition) { d.Tasks[1].DependsOn = nil },
		"none":         func(d *Definition) { d.Tasks[0].DependsOn = []int{} },
		"title":        func(d *Definition) { d.Tasks[0].Description = "x" },
		"attempts":     func(d *Definition) { d.Tasks[0].MaxAttempts = 2 },
		"delay":        func(d *Definition) { d.Tasks[0].RetryDelay += time.Millisecond },
		"timeout":      func(d *Definition) { d.Tasks[0].Timeout = time.Second },
		"on lost":      func(d *Definition) { d.Tasks[0].OnLost = OnLostSuspend },
		"run if":       func(d *Definition) { d.Tasks[0].RunIf = "true" },
		"dependencies": func(d *Definition) { d.Tasks[1].DependsOn = []int{2} },
	} {
		other := definition()
		change(&other)
		require.False(t, definition().Equal(other), name)
		require.False(t, other.Equal(definition()), name)
	}
}
