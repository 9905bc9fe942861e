package expression

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// object decodes JSON as Env has it.
func object(t testing.TB, text string) map[string]any {
	t.Helper()
	v, err := Decode(json.RawMessage(text))
	require.NoError(t, err)
	return v.(map[string]any)
}

func newEnv(t testing.TB) Env {
	t.Helper()
	return Env{
		Params: object(t, `{"day": "monday", "n": 3, "big": 18446744073709551615, "nested": {"list": [1, 2.5, null]}}`),
		Outputs: map[int]any{
			1: object(t, `{"rows": [{"id": 1, "total": 2.5}, {"id": 2, "total": 10}], "path": "/tmp/x"}`),
			2: "text",
		},
		Flow:    Flow{ID: "f1", Workflow: "w", Seq: 4, Attempt: 2, Registered: time.Date(2026, 11, 24, 19, 27, 25, 0, time.UTC)},
		Secrets: map[string]string{"TOKEN": "s3cr3t-t0ken"},
	}
}

func inJSON(t testing.TB, v any) json.RawMessage {
	t.Helper()
	raw, err := encode(v)
	require.NoError(t, err)
	return raw
}

func evaluate(t *testing.T, value string) (string, error) {
	t.Helper()
	v, err := Parse(json.RawMessage(value))
	if err != nil {
		return "", err
	}
	require.NotNil(t, v, "there is no expression in it")
	raw, err := v.Eval(t.Context(), newEnv(t))
	return string(raw), err
}

// one evaluates a single expression.
func one(t *testing.T, text string) (string, error) {
	t.Helper()
	return evaluate(t, string(inJSON(t, "${{ "+text+" }}")))
}

func TestEval_OneExpressionKeepsItsType(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`params.day`:                                   `"monday"`,
		`params.n`:                                     `3`,
		`params.n + 1`:                                 `4`,
		`params.n / 2`:                                 `1.5`,
		`params.big`:                                   `18446744073709551615`, // no number to count with
		`params.nested.list`:                           `[1,2.5,null]`,
		`params.missing`:                               `null`,
		`params`:                                       `{"big":18446744073709551615,"day":"monday","n":3,"nested":{"list":[1,2.5,null]}}`,
		`params.day == "monday"`:                       `true`,
		`outputs[1].rows[0].total`:                     `2.5`,
		`outputs[1].rows | map(.id)`:                   `[1,2]`,
		`filter(outputs[1].rows, .id > 1)`:             `[{"id":2,"total":10}]`,
		`sum(outputs[1].rows, .total)`:                 `12.5`,
		`count(outputs[1].rows, .id > 1)`:              `1`,
		`any(outputs[1].rows, .total > 9)`:             `true`,
		`sortBy(outputs[1].rows, -.total)`:             `[{"id":2,"total":10},{"id":1,"total":2.5}]`,
		`outputs[2]`:                                   `"text"`,
		`outputs[3]`:                                   `null`, // it was skipped, or returned nothing
		`outputs[3]?.rows ?? []`:                       `[]`,
		`outputs?.[1]?.path`:                           `"/tmp/x"`,
		`flow`:                                         `{"id":"f1","workflow":"w","seq":4,"attempt":2,"registered":"2026-11-24T19:27:25Z"}`,
		`flow.registered`:                              `"2026-11-24T19:27:25Z"`,
		`flow.registered.Format("Jan 2")`:              `"Nov 24"`,
		`flow.id + "-" + string(flow.seq)`:             `"f1-4"`,
		`secrets.TOKEN`:                                `"s3cr3t-t0ken"`,
		`secrets["TOKEN"]`:                             `"s3cr3t-t0ken"`,
		`toBase64("user:" + secrets.TOKEN)`:            `"dXNlcjpzM2NyM3QtdDBrZW4="`,
		`{"a": {"b": params.n}}`:                       `{"a":{"b":3}}`,
		`"}} ` + "`}}`" + ` '}}'"`:                     "\"}} `}}` '}}'\"",
		`toJSON({"a": "<&>", "n": 1})`:                 `"{\"a\":\"<&>\",\"n\":1}"`,
		`fromJSON("[18446744073709551615, 1.0, 0.1]")`: `[18446744073709551615,1,0.1]`,
		`string(params.nested)`:                        `"{\"list\":[1,2.5,null]}"`,
		`replace(params.day, "mon", "sun")`:            `"sunday"`,
		`urlEncode("a b&c/é")`:                         `"a+b%26c%2F%C3%A9"`,
		`duration("90m")`:                              `"1h30m0s"`,
		`[duration("1s"), {"d": duration("2s")}]`:      `["1s",{"d":"2s"}]`,
		`(flow.registered - duration("24h")).Format("2006-01-02")`:             `"2026-11-23"`,
		`flow.registered.In(timezone("Asia/Tokyo")).Format("2006-01-02 15h")`:  `"2026-11-25 04h"`,
		`let total = sum(outputs[1].rows, .total); total > 12 ? "much" : "ok"`: `"much"`,
		`"${{ params.day }}"`: `"${{ params.day }}"`, // what an expression comes to is data
	} {
		got, err := one(t, text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestEval_InAText(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`"a ${{ params.day }} z"`:                             `"a monday z"`,
		`"${{ params.n }}${{params.n}}"`:                      `"33"`,
		`" ${{ params.n }}"`:                                  `" 3"`,
		`"${{ params.nested }}!"`:                             `"{\"list\":[1,2.5,null]}!"`,
		`"${{ true }}, ${{ 1.5 }}"`:                           `"true, 1.5"`,
		`"at ${{ flow.registered }}"`:                         `"at 2026-11-24T19:27:25Z"`,
		`"for ${{ duration('90s') }}"`:                        `"for 1m30s"`,
		`"$ { {{ }} ${ {x}} ${{ '${{' }}"`:                    `"$ { {{ }} ${ {x}} ${{"`,
		`"\u0024\u007b\u007b params.n }}"`:                    `3`,
		`"${{ params.day }}\n<b>&\u2028"`:                     "\"monday\\n<b>&\\u2028\"",
		`{"a": ["x", {"b": "${{ params.n }}"}], "c": 1.50}`:   `{"a":["x",{"b":3}],"c":1.50}`,
		`["${{ params.day }}", "${{ params.day }}?", null]`:   `["monday","monday?",null]`,
		`"${{ outputs[1].rows[0].id }}/${{ secrets.TOKEN }}"`: `"1/s3cr3t-t0ken"`,
	} {
		got, err := evaluate(t, value)
		require.NoError(t, err, value)
		require.Equal(t, want, got, value)
	}
}

func TestParse_WithoutExpressions(t *testing.T) {
	t.Parallel()
	for _, value := range []string{`null`, `1`, `"text"`, `{"a": ["b }}"]}`, `"\u0041"`, ``, `{`, `"$ {{ }}"`} {
		v, err := Parse(json.RawMessage(value))
		require.NoError(t, err, value)
		require.Nil(t, v, value)
		require.False(t, In(json.RawMessage(value)), value)
	}
	for _, value := range []string{`"${{"`, `{"a": [{"b": "x${{"}]}`, `{"${{": 1}`, `"\u0024{{"`, `{"\u0024{{ x": 1}`} {
		require.True(t, In(json.RawMessage(value)), value)
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Uses{
		`1`:                                     {},
		`flow.id + string(flow.seq)`:            {},
		`flow.registered`:                       {Flow: true},
		`flow["registered"]`:                    {Flow: true},
		`toJSON(flow)`:                          {Flow: true},
		`params?.day`:                           {Flow: true},
		`outputs[3] ?? outputs[1].rows[2]`:      {Outputs: []int{3, 1}},
		`secrets.A + secrets["B"] + secrets?.C`: {Secrets: []string{"A", "B", "C"}},
		`map([1], outputs[7] + #)`:              {Outputs: []int{7}},
	} {
		v, err := Parse(inJSON(t, "${{ "+text+" }}"))
		require.NoError(t, err, text)
		require.Equal(t, want, v.Uses(), text)
	}
	v, err := Parse(json.RawMessage(`["${{ outputs[1] }}", {"a": "${{ secrets.A }} ${{ params }}"}]`))
	require.NoError(t, err)
	require.Equal(t, Uses{Outputs: []int{1}, Secrets: []string{"A"}, Flow: true}, v.Uses())
}

// What is wrong with an expression itself is found before there is any data.
func TestParse_Refuses(t *testing.T) {
	t.Parallel()
	const (
		needsSeq  = "outputs needs the task_seq of a task, as in outputs[1]"
		needsName = "secrets needs a name of letters, digits and _, as in secrets.TOKEN"
	)
	for text, want := range map[string]string{
		`1 +`:                         "it ends too early (line 1, column 3)",
		``:                            "it ends too early",
		`params.day day`:              `unexpected token Identifier("day") (line 1, column 12)`,
		`parms.day`:                   "unknown name parms (line 1, column 1)",
		`flow.name`:                   "flow has no field name (line 1, column 6)",
		`env.HOME`:                    "unknown name env (line 1, column 1)",
		`$env`:                        "unknown name $env",
		`$env["secrets"]`:             "unknown name $env",
		`outputs`:                     needsSeq,
		`outputs[params.n]`:           needsSeq,
		`outputs[-1]`:                 needsSeq,
		`outputs["1"]`:                needsSeq,
		`map(1..3, outputs[#])`:       needsSeq,
		`secrets`:                     needsName,
		`toJSON(secrets)`:             needsName,
		`secrets[params.day]`:         needsName,
		`secrets["../../etc/passwd"]`: needsName,
		`secrets["A.B"]`:              needsName,
		`now()`:                       "unknown name now (line 1, column 1)",
		`repeat("a", 9)`:              "unknown name repeat (line 1, column 1)",
		`keys(params)`:                "unknown name keys (line 1, column 1)",
		strings.Repeat("(", 1500):     "it ends too early (line 1, column 1500)",
		strings.Repeat("1+", 600):     "compilation failed: expression exceeds maximum allowed nodes",
		strings.Repeat("1", 2001):     "it has 2001 bytes, and 2000 are allowed",
		"1 +\n\n2 + x":                "unknown name x (line 3, column 5)",
	} {
		v := inJSON(t, "${{ "+text+" }}")
		_, err := Parse(v)
		var e *Error
		require.ErrorAs(t, err, &e, text)
		require.Contains(t, e.Problem, want, text)
		require.NotContains(t, err.Error(), "\n", text)
		require.Less(t, len(err.Error()), 400, text)
	}
	for value, want := range map[string]string{
		`"${{ params.day"`:     `${{ params.day }}: it has no end, }}`,
		`"${{ '}}' "`:          `${{ '}}' }}: it has no end, }}`,
		`"${{ '"`:              `${{ ' }}: it has no end, }}`,
		`"${{ a } }}"`:         `${{ a } }} }}: it has no end, }}`,
		`"a ${{ x }} b"`:       `${{ x }}: unknown name x (line 1, column 1)`,
		`{"${{ params.n}}":1}`: `a key cannot have an expression in it: ${{ ${{ params.n}} }}`,
	} {
		_, err := Parse(json.RawMessage(value))
		require.EqualError(t, err, want)
	}
}

func TestEval_SaysWhatFails(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`outputs[3].rows`:             "cannot fetch rows from null (line 1, column 12)",
		`outputs[1].rows[5]`:          "index out of range: 5 (array length is 2) (line 1, column 16)",
		`params.day + 1`:              "invalid operation: string + int (line 1, column 12)",
		`params.big + 1`:              "invalid operation: json.Number + int (line 1, column 12)",
		`upper(params.n)`:             "a value is int, not string (line 1, column 1)",
		`replace(params.n, "a", "b")`: "replace takes strings, not a number (line 1, column 1)",
		`fromJSON("{")`:               "it is not JSON (line 1, column 1)",
		`urlEncode(params.n)`:         "urlEncode takes a string, not a number (line 1, column 1)",
		`fromJSON(params.n)`:          "fromJSON takes a string, not a number (line 1, column 1)",
		`params.n / 0`:                "it comes to +Inf, which is not JSON",
		`{"a": [params.n / 0]}`:       "it comes to an object, which is not JSON",
		`groupBy([1], #)`:             "which is not JSON",
	} {
		_, err := one(t, text)
		var e *Error
		require.ErrorAs(t, err, &e, text)
		require.Contains(t, e.Problem, want, text)
	}
	_, err := evaluate(t, `"s3://${{ params.missing }}/x"`)
	require.EqualError(t, err, "${{ params.missing }}: it is null, which is no text; ?? says what to take instead")
}

func TestErrorsShowTheBeginningOfLongExpressions(t *testing.T) {
	t.Parallel()
	err := &Error{"a\n\t+\x1b[31m" + strings.Repeat("ü", 500), "why"}
	require.Equal(t, "${{ a +"+" [31m"+strings.Repeat("ü", 120-8)+"… }}: why", err.Error())
}

// A definition's mistake must not take the watcher's memory or time: each of these lines
// would.
func TestEval_IsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 60_000)
	env := newEnv(t)
	env.Params["long"] = long
	for _, text := range []string{
		`1..100000000`,
		`map(1..50000, params.long)`,
		`map(1..9999, map(1..9999, #))`,
		`let a = 1..9999; all(a, all(a, all(a, # > 0)))`,
		`let a = 1..9999; count(a, count(a, count(a, # > 0) > 0) > 0)`,
		`let a = params.long + params.long; let b = a + a + a + a; let c = b + b + b + b; let d = c + c + c + c; d + d + d`,
		`reduce(1..40, #acc + #acc, "xxxxxxxx")`,
		`replace(params.long, "x", params.long)`,
		`join(map(1..9999, params.long))`,
		`toJSON([[params.long, params.long, params.long], map(1..100, params.long)])`,
		`let a = map(1..30, params.long); let b = map(1..30, a); map(1..30, b)`,
		`let a = [params.long, params.long]; let b = [a, a, a, a]; let c = [b, b, b, b]; [c, c, c, c, c]`,
		`let a = map(1..2000, params.long matches "(x+x+)+y"); a`,
		`split(params.long, "") | map(split(params.long, ""))`,
		`map(1..99, toBase64(params.long))`,
		`map(1..99, upper(params.long))`,
		`map(1..99, let x = {"a": params.long}; [x])`,
	} {
		v, err := Parse(inJSON(t, "${{ "+text+" }}"))
		require.NoError(t, err, text)
		begin := time.Now()
		_, err = v.Eval(t.Context(), env)
		require.Error(t, err, text)
		require.Regexp(t, `makes more than 4 MiB of data|lists more than 100000 elements|takes longer than 5s`, err.Error(), text)
		require.Less(t, time.Since(begin), 3*maxTime, text)
	}
	// So are many small ones together, and what they come to in the end.
	many := `["${{ params.long }}"` + strings.Repeat(`, "${{ params.long }}"`, 99) + `]`
	v, err := Parse(json.RawMessage(many))
	require.NoError(t, err)
	_, err = v.Eval(t.Context(), env)
	require.ErrorContains(t, err, "makes more than 4 MiB of data")
	v, err = Parse(json.RawMessage(`["${{ params.long }}"` + strings.Repeat(`, "${{ params.long }}"`, 17) + `]`))
	require.NoError(t, err)
	_, err = v.Eval(t.Context(), env)
	require.EqualError(t, err, "it comes to 1080055 bytes, and 1048576 are allowed")
}

func TestEval_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	v, err := Parse(json.RawMessage(`"${{ map(1..9, #) }}"`))
	require.NoError(t, err)
	cancel(stop)
	_, err = v.Eval(ctx, newEnv(t))
	require.Equal(t, stop, err)
	c, err := ParseCondition(`all(1..9, # > 0)`)
	require.NoError(t, err)
	_, err = c.Holds(ctx, newEnv(t))
	require.Equal(t, stop, err)
}

func TestCondition(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`true`:                                  true,
		`params.n > 3`:                          false,
		`${{ params.n >= 3 }}`:                  true,
		"  ${{params.n >= 3}}\n":                true,
		`"${{" == params.day`:                   false,
		`outputs[3] == nil`:                     true,
		`len(outputs[1].rows) > 1`:              true,
		`params.day in ["saturday", "sunday"]`:  false,
		`flow.registered.Weekday() == 2`:        false, // the types differ; a mistake that is hard to see
		`int(flow.registered.Weekday()) == 2`:   true,
		`any(outputs[1].rows, .total > 9)`:      true,
		`outputs[2] matches "^te" ? true : nil`: true,
	} {
		c, err := ParseCondition(text)
		require.NoError(t, err, text)
		got, err := c.Holds(t.Context(), newEnv(t))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, want := range map[string]string{
		`params.n >`:                   `${{ params.n > }}: it ends too early (line 1, column 10)`,
		`secrets.TOKEN != ""`:          `${{ secrets.TOKEN != "" }}: unknown name secrets (line 1, column 1)`,
		`outputs`:                      `${{ outputs }}: outputs needs the task_seq of a task, as in outputs[1]`,
		`1 - 1`:                        `${{ 1 - 1 }}: it is neither true nor false, but a number`,
		`"yes"`:                        `${{ "yes" }}: it is neither true nor false, but a string`,
		`${{ true }} and ${{ false }}`: `${{ ${{ true }} and ${{ false }} }}: `,
		strings.Repeat(" ", 10):        `${{  }}: it ends too early`,
	} {
		_, err := ParseCondition(text)
		require.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{
		`params.n`:        `${{ params.n }}: it is neither true nor false, but a number`,
		`params.missing`:  `${{ params.missing }}: it is neither true nor false, but null`,
		`outputs[3].rows`: `${{ outputs[3].rows }}: cannot fetch rows from null (line 1, column 12)`,
	} {
		c, err := ParseCondition(text)
		require.NoError(t, err, text)
		_, err = c.Holds(t.Context(), newEnv(t))
		require.EqualError(t, err, want)
	}
	c, err := ParseCondition(` ${{ outputs[2] == params.day }} `)
	require.NoError(t, err)
	require.Equal(t, Uses{Outputs: []int{2}, Flow: true}, c.Uses())
	require.Equal(t, "${{ outputs[2] == params.day }}", c.String())
}

func TestDecode_Numbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		"1": 1, "-7": -7, "0": 0, "9223372036854775807": 9223372036854775807, "9223372036854775808": json.Number("9223372036854775808"),
		"1.5": 1.5, "1.0": 1.0, "0.1": 0.1, "0.30000000000000004": 0.30000000000000004, "1e3": 1000.0, "-0.0": 0.0, "1E-2": 0.01,
		"12345678901234567.89": json.Number("12345678901234567.89"), "0.12345678901234567890": json.Number("0.12345678901234567890"),
		"1e999": json.Number("1e999"), "1e-999": json.Number("1e-999"), "100000000000000000000": 1e20,
	} {
		got, err := Decode(json.RawMessage(text))
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	_, err := Decode(json.RawMessage(`1 2`))
	require.Error(t, err)
}
