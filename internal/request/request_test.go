package request

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a": [1, 2.5e3, "é\ud83d\ude00", null]}`: "",
		`{"a": `:                  "line 1, column 7 (byte 6)",
		"{\n  \"a\": nope}":       "line 2, column 9",
		`{"a": "` + "\x00" + `"}`: "U+0000",
		`{"a": "\u0000"}`:         "U+0000",
		`{"a": "\ud800"}`:         "half of a surrogate pair",
		"{\"a\": \"\xff\"}":       "not UTF-8",
		strings.Repeat("[", 101):  "nested deeper than 100",
		`taskId=sample`:           `send for example {"x": 1}`,
	} {
		err := Check([]byte(text), `{"x": 1}`)
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	key, err := Key(http.Header{})
	require.NoError(t, err)
	require.Empty(t, key)
	key, err = Key(http.Header{"Idempotency-Key": {"2026 日"}})
	require.NoError(t, err)
	require.Equal(t, "2026 日", key)
	for _, values := range [][]string{{""}, {"a", "b"}, {strings.Repeat("a", 201)}, {"a\tb"}, {"\xff"}} {
		_, err = Key(http.Header{"Idempotency-Key": values})
		require.Error(t, err, values)
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	id, err := ID("a%2Fb%20%2541")
	require.NoError(t, err)
	require.Equal(t, "a/b %41", id, "unescaped once")
	for _, bad := range []string{"%", "%zz", "%00", "%ff"} {
		_, err = ID(bad)
		require.Error(t, err, bad)
	}
}

// A request is told from another by what it asks for, not by how it is written.
func TestRegistration_Fingerprint(t *testing.T) {
	t.Parallel()
	ctx := access.With(t.Context(), access.Principal{Name: "bob", Role: access.Registrar})
	keyed := http.Header{"Idempotency-Key": {"k"}}
	made := func(g Registration, h http.Header) string {
		t.Helper()
		r, err := g.Flow(ctx, h)
		require.NoError(t, err)
		require.Equal(t, "bob", r.RegisteredBy)
		return r.Fingerprint
	}
	one := Registration{TaskID: "w", Parameters: json.RawMessage(`{"b": 1, "a": 2}`), Note: "x"}
	same := Registration{TaskID: "w", Parameters: json.RawMessage(` {"a":2,"b":1}`), Note: "y"}
	require.Equal(t, made(one, keyed), made(same, keyed))
	other := same
	other.TaskID = "v"
	require.NotEqual(t, made(one, keyed), made(other, keyed))
	require.Empty(t, made(one, nil))
	own := one
	own.TaskFlowID = "mine"
	require.Equal(t, made(own, keyed), made(own, keyed))
	require.NotEqual(t, made(one, keyed), made(own, keyed))
	require.NotEqual(t, made(own, nil), made(own, nil), "without a key every request is another one")
	r, err := own.Flow(ctx, nil)
	require.NoError(t, err)
	require.True(t, r.OwnID)
	require.Equal(t, "mine", string(r.FlowID))
	long := own
	long.TaskFlowID = strings.Repeat("é", 257)
	_, err = long.Flow(ctx, nil)
	require.ErrorContains(t, err, "longer than 256 characters")
}

// What passes is JSON of text that the database can hold.
func FuzzCheck(f *testing.F) {
	for _, text := range []string{`{"a": "\ud83d\ude00"}`, `{"a": "\u0000"}`, "[[[", `"\ud800\u0041"`, "null", "1e5", "{\"\xff\": 1}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if Check(text, "{}") != nil {
			return
		}
		var v any
		require.NoError(t, json.Unmarshal(text, &v))
		again := Compact(v)
		require.True(t, utf8.Valid(again))
		require.NotContains(t, string(again), `\u0000`)
	})
}

func TestMask(t *testing.T) {
	t.Parallel()
	var v any
	require.NoError(t, json.Unmarshal([]byte(`{"day": "Monday", "token": {"a": 1}, "list": [{"apiKey": "x", "n": [1, "y"]}, "z"], "in": {"PASS": null}}`), &v))
	masked, err := json.Marshal(Mask(v))
	require.NoError(t, err)
	require.JSONEq(t, `{"day": "Monday", "token": "***", "list": [{"apiKey": "***", "n": [1, "y"]}, "z"], "in": {"PASS": "***"}}`, string(masked))
}
