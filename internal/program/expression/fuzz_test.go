package expression

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzParse gives any text as a parameter: it is refused in words, or comes to JSON within
// the bounds, or to an error in words.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "${{", "${{}}", "${{ params.day }}", "a${{ outputs[1].rows[0].id + 1 }}b${{ secrets.TOKEN }}", "${{ '}}' }}", "${{ {\"a\": {}} }}",
		"${{ `}}` }}", "${{ map(outputs[1].rows, {#.id}) }}", "${{ reduce(1..9, #acc + #, 0) }}", "${{ 1..99999999 }}", "${{ $env }}",
		"${{ 0 % 0 }}", "${{ let x = params.n; x ** x }}", "${{ b\"x\" }}", "${{ \"\\u0000\" }}", "${{ 'a' matches '(' }}", "${{ a\xff }}", "${{ // }}\n1 }}",
		"${{ params?.[\"day\"][1:2] }}", "${{ groupBy(1..9, # % 2)[0] }}", "${{ date('2026-01-01').Unix() }}", "${{ if true { 1 } else { 2 } }}",
	} {
		f.Add(s)
	}
	env := newEnv(f)
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := json.Marshal(s)
		require.NoError(t, err)
		v, err := Parse(raw)
		checkError(t, err)
		if c, err := ParseCondition(s); err == nil {
			_, err = c.Holds(t.Context(), env)
			checkError(t, err)
		} else {
			checkError(t, err)
		}
		if err != nil {
			return
		}
		require.Equal(t, In(raw), v != nil)
		require.Equal(t, strings.Contains(strings.ToValidUTF8(s, "\uFFFD"), Begin), v != nil)
		if v == nil {
			return
		}
		begin := time.Now()
		got, err := v.Eval(t.Context(), env)
		require.Less(t, time.Since(begin), 2*maxTime)
		checkError(t, err)
		if err == nil {
			require.True(t, json.Valid(got), "%s", got)
			require.True(t, utf8.Valid(got))
			require.LessOrEqual(t, len(got), maxValue)
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *Error
	if errors.As(err, &e) {
		require.NotEmpty(t, e.Problem)
		require.NotContains(t, e.Problem, "runtime error", "expr did not see it coming: %s", e.Expression)
	}
	require.NotContains(t, show(e.expressionOrEmpty()), "\n")
}

func (e *Error) expressionOrEmpty() string {
	if e == nil {
		return ""
	}
	return e.Expression
}

// FuzzDataIsNotCode puts any text where data comes from: it arrives as it is, alone and
// within a text, whatever it contains.
func FuzzDataIsNotCode(f *testing.F) {
	for _, s := range []string{"", "x", "${{ secrets.TOKEN }}", "}}", "${{", "\"", "\\", "\x00", "\u2028<>&", "'; DROP"} {
		f.Add(s)
	}
	alone, err := Parse(json.RawMessage(`"${{ params.x }}"`))
	require.NoError(f, err)
	within, err := Parse(json.RawMessage(`{"a": ["<${{ outputs[1].x }}|${{ params.x }}>"]}`))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return // no JSON has it
		}
		data := map[string]any{"x": s}
		env := Env{Params: data, Outputs: map[int]any{1: data}, Secrets: map[string]string{"TOKEN": "s3cr3t-t0ken"}}
		got, err := alone.Eval(t.Context(), env)
		require.NoError(t, err)
		var text string
		require.NoError(t, json.Unmarshal(got, &text))
		require.Equal(t, s, text)

		got, err = within.Eval(t.Context(), env)
		require.NoError(t, err)
		var object struct{ A []string }
		require.NoError(t, json.Unmarshal(got, &object))
		require.Equal(t, []string{"<" + s + "|" + s + ">"}, object.A)
	})
}
