package program

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

var (
	text     = Parameter{Name: "P", Type: String}
	integer  = Parameter{Name: "P", Type: Integer}
	number   = Parameter{Name: "P", Type: Number}
	boolean  = Parameter{Name: "P", Type: Boolean}
	object   = Parameter{Name: "P", Type: Object}
	array    = Parameter{Name: "P", Type: Array}
	address  = Parameter{Name: "P", Type: URL}
	anything = Parameter{Name: "P", Type: Any}
	list     = Parameter{Name: "P", Type: Strings}
	texts    = Parameter{Name: "P", Type: Map}
	choice   = Parameter{Name: "P", Type: String, OneOf: []string{"GET", "PUT"}}
)

func decodeJSON(declared []Parameter, parameters json.RawMessage) (Values, error) {
	given, err := members(parameters)
	if err != nil {
		return nil, err
	}
	return decode(declared, given, false)
}

func TestDecode_Accepts(t *testing.T) {
	t.Parallel()
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	withDefault := Parameter{Name: "P", Type: Integer, Default: raw(`"4"`)}
	for _, c := range []struct {
		parameter  Parameter
		parameters string
		want       any
	}{
		{text, `{"P": "a\nb"}`, "a\nb"},
		{text, `{"P": ""}`, ""},
		{text, `{"P": 1}`, "1"},
		{text, `{"P": -1.50}`, "-1.50"},
		{text, `{"P": null}`, nil},
		{text, `{}`, nil},
		{text, ``, nil},
		{integer, `{"P": 1}`, int64(1)},
		{integer, `{"P": "1"}`, int64(1)},
		{integer, `{"P": " +01 "}`, int64(1)},
		{integer, `{"P": 1.0}`, int64(1)},
		{integer, `{"P": 1e3}`, int64(1000)},
		{integer, `{"P": 9223372036854775807}`, int64(9223372036854775807)},
		{integer, `{"P": "-9223372036854775808"}`, int64(-9223372036854775808)},
		{number, `{"P": 1.5}`, 1.5},
		{number, `{"P": "1.5"}`, 1.5},
		{number, `{"P": ".5"}`, .5},
		{number, `{"P": "-1e3"}`, -1000.0},
		{boolean, `{"P": true}`, true},
		{boolean, `{"P": "false"}`, false},
		{object, `{"P":  { "b": 1, "a": [ ] } }`, raw(`{ "b": 1, "a": [ ] }`)},
		{array, `{"P": [1,  "x"] }`, raw(`[1,  "x"]`)},
		{list, `{"P": ["a", "", 1.50]}`, []string{"a", "", "1.50"}},
		{list, `{"P": []}`, []string{}},
		{texts, `{"P": {"A": "x", "B": 1}}`, map[string]string{"A": "x", "B": "1"}},
		{texts, `{"P": {}}`, map[string]string{}},
		{choice, `{"P": "PUT"}`, "PUT"},
		{anything, `{"P": "s" }`, raw(`"s"`)},
		{anything, `{"P": 1e400 }`, raw(`1e400`)},
		{anything, `{"P": {"a": null}}`, raw(`{"a": null}`)},
		{anything, `{"P": null}`, nil},
		{withDefault, `{}`, int64(4)},
		{withDefault, `{"P": null}`, int64(4)},
		{withDefault, `{"P": 5}`, int64(5)},
		{address, `{"P": " https://u:p@h:1/a?b=c "}`, &url.URL{
			Scheme: "https", Host: "h:1", Path: "/a", RawQuery: "b=c", User: url.UserPassword("u", "p"),
		}},
		// The last of two of a name counts, and case counts.
		{text, `{"P": 1, "p": 2, "P": "x"}`, "x"},
	} {
		got, err := decodeJSON([]Parameter{c.parameter}, raw(c.parameters))
		require.NoError(t, err, c.parameters)
		require.Equal(t, Values{"P": c.want}, got, c.parameters)
	}
}

func TestDecode_Refuses(t *testing.T) {
	t.Parallel()
	bounded := func(p Parameter, low, high *float64) Parameter {
		p.Min, p.Max = low, high
		return p
	}
	required := func(p Parameter) Parameter { p.Required = true; return p }
	for _, c := range []struct {
		parameter  Parameter
		parameters string
		want       string
	}{
		{text, `{"P": true}`, `a boolean is not a string`},
		{text, `{"P": {"secret": "x"}}`, `an object is not a string`},
		{text, `{"P": ["x"]}`, `an array is not a string`},
		{integer, `{"P": "soon"}`, `"soon" is not a whole number`},
		{integer, `{"P": 1.5}`, `1.5 is not a whole number`},
		{integer, `{"P": "1.5"}`, `"1.5" is not a whole number`},
		{integer, `{"P": 9223372036854775808}`, `9223372036854775808 is not a whole number`},
		{integer, `{"P": 1e30}`, `1e30 is not a whole number`},
		{integer, `{"P": false}`, `false is not a whole number`},
		{integer, `{"P": [1]}`, `an array is not a whole number`},
		{number, `{"P": ""}`, `"" is not a number`},
		{number, `{"P": "1s"}`, `"1s" is not a number`},
		{number, `{"P": "1,5"}`, `"1,5" is not a number`},
		{number, `{"P": "Inf"}`, `"Inf" is not a number`},
		{number, `{"P": "nan"}`, `"nan" is not a number`},
		{number, `{"P": "0x10"}`, `"0x10" is not a number`},
		{number, `{"P": "1_000"}`, `"1_000" is not a number`},
		{number, `{"P": 1e999}`, `1e999 is not a number`},
		{number, `{"P": "a\u0000\u001b\u202eb"}`, `"a\x00\x1b\u202eb" is not a number`},
		{number, `{"P": "` + strings.Repeat("é", 500) + `"}`, `"` + strings.Repeat("é", 32) + `…" is not a number`},
		{number, `{"P": ` + strings.Repeat("1", 500) + `}`, strings.Repeat("1", 64) + `… is not a number`},
		{bounded(integer, new(0.0), new(5.0)), `{"P": 6}`, `6 is not a whole number from 0 to 5`},
		{bounded(integer, new(0.0), nil), `{"P": -1}`, `-1 is not a whole number of at least 0`},
		{bounded(number, nil, new(0.5)), `{"P": "0.6"}`, `"0.6" is not a number of at most 0.5`},
		{boolean, `{"P": 1}`, `1 is not true or false`},
		{boolean, `{"P": "yes"}`, `"yes" is not true or false`},
		{boolean, `{"P": {}}`, `an object is not true or false`},
		{object, `{"P": "secret"}`, `a string is not a JSON object`},
		{object, `{"P": []}`, `an array is not a JSON object`},
		{array, `{"P": {}}`, `an object is not a JSON array`},
		{list, `{"P": "a"}`, `a string is not a JSON array of strings`},
		{list, `{"P": {}}`, `an object is not a JSON array of strings`},
		{list, `{"P": ["a", null]}`, `item 2 is null, not a string`},
		{list, `{"P": [["a"]]}`, `item 1 is an array, not a string`},
		{texts, `{"P": []}`, `an array is not a JSON object of strings`},
		{texts, `{"P": {"B": true, "A": {}}}`, `"A" is an object, not a string`},
		{choice, `{"P": "get"}`, `"get" is not one of GET, PUT`},
		{choice, `{"P": true}`, `a boolean is not one of GET, PUT`},
		{address, `{"P": 1}`, `a number is not a URL like https://example.com/path`},
		{address, `{"P": {}}`, `an object is not a URL like https://example.com/path`},
		{required(text), `{}`, `it is missing, and must be a string`},
		{required(anything), `{"P": null}`, `it is missing, and must be any JSON value`},
		{required(array), ``, `it is missing, and must be a JSON array`},
		{
			required(text), `{"p": 1, " P": 2}`,
			`it is missing, and must be a string; this program does not know " P", "p"`,
		},
		{
			required(text), `{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}`,
			`it is missing, and must be a string; this program does not know "a", "b", "c", 2 more`,
		},
	} {
		_, err := decodeJSON([]Parameter{c.parameter}, json.RawMessage(c.parameters))
		requireInvalid(t, err, `parameter "P": `+c.want)
	}
}

func TestDecode_ParametersMustBeAnObject(t *testing.T) {
	t.Parallel()
	for _, parameters := range []string{`null`, `[]`, `"x"`, `1`, `true`, `{`, ` `, `{"a":1} x`, "\x00"} {
		_, err := decodeJSON(nil, json.RawMessage(parameters))
		requireInvalid(t, err, `parameters: they are not a JSON object like {"NAME": "value"}`)
	}
}

// URLs hold passwords and tokens: an error must not repeat any part of them.
func TestDecode_RefusedURLsAreNotRepeated(t *testing.T) {
	t.Parallel()
	for parameter, want := range map[string]string{
		"":                             "it is not a URL like https://example.com/path",
		"secret":                       "it is not a URL like https://example.com/path",
		"/secret":                      "it is not a URL like https://example.com/path",
		"secret.example/path":          "it is not a URL like https://example.com/path",
		"http:///secret":               "it is not a URL like https://example.com/path",
		"http://:80/secret":            "it is not a URL like https://example.com/path",
		"http:secret":                  "it is not a URL like https://example.com/path",
		"http://u:secret@h:port/":      "it is not a URL like https://example.com/path",
		"http://u:secret@[::1/":        "it is not a URL like https://example.com/path",
		"http://h/\x7fsecret":          "it is not a URL like https://example.com/path",
		"http://u:secret%zz@h/":        "it is not a URL like https://example.com/path",
		"ftp://u:secret@h/":            "it must begin with http:// or https://",
		"file://h/secret":              "it must begin with http:// or https://",
		"gopher://h/secret":            "it must begin with http:// or https://",
		"unix://h/secret":              "it must begin with http:// or https://",
		"//secret/path":                "it must begin with http:// or https://",
		"javascript://h/%0asecret()":   "it must begin with http:// or https://",
		"https+unix://secret.sock/":    "it must begin with http:// or https://",
		"HTTP\u2028://secret.example/": "it is not a URL like https://example.com/path",
	} {
		encoded, err := json.Marshal(map[string]string{"P": parameter})
		require.NoError(t, err)
		_, err = decodeJSON([]Parameter{address}, encoded)
		requireInvalid(t, err, `parameter "P": `+want)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	target := &url.URL{Host: "h"}
	v := Values{
		"S": "s", "I": int64(1), "F": 1.5, "B": true, "U": target, "J": json.RawMessage(`{}`),
		"L": []string{"a"}, "M": map[string]string{"a": "b"}, "NONE": nil, "OPEN": open{},
	}
	require.Equal(t, "s", v.String("S"))
	require.Equal(t, int64(1), v.Int("I"))
	require.InDelta(t, 1.5, v.Float("F"), 0)
	require.Equal(t, 1500*time.Millisecond, v.Seconds("F"))
	require.True(t, v.Bool("B"))
	require.Same(t, target, v.URL("U"))
	require.Equal(t, json.RawMessage(`{}`), v.JSON("J"))

	require.Equal(t, []string{"a"}, v.Strings("L"))
	require.Equal(t, map[string]string{"a": "b"}, v.Map("M"))

	require.True(t, v.Open("OPEN"))
	require.False(t, v.Open("S"))
	require.False(t, v.Open("NONE"))
	require.Empty(t, v.String("OPEN"))

	require.Empty(t, v.String("NONE"))
	require.Empty(t, v.Strings("NONE"))
	require.Empty(t, v.Map("NONE"))
	require.Zero(t, v.Int("NONE"))
	require.Zero(t, v.Float("NONE"))
	require.Zero(t, v.Seconds("NONE"))
	require.False(t, v.Bool("NONE"))
	require.Nil(t, v.URL("NONE"))
	require.Nil(t, v.JSON("NONE"))

	require.PanicsWithValue(t, `program: it does not declare the parameter "X" that it reads`, func() { v.Int("X") })
	require.PanicsWithValue(t, `program: it reads parameter "S" as int64, and declares what makes a string`, func() { v.Int("S") })
}

// FuzzCheck gives programs whatever a row may hold. The answer is yes, or an error that
// fits into a row and a log line; and what was accepted has the declared types.
func FuzzCheck(f *testing.F) {
	every := []Parameter{
		{Name: "S", Type: String},
		{Name: "I", Type: Integer},
		{Name: "N", Type: Number, Unit: "metres", Min: new(-1.0)},
		{Name: "B", Type: Boolean},
		{Name: "O", Type: Object},
		{Name: "A", Type: Array},
		{Name: "U", Type: URL},
		{Name: "X", Type: Any},
		{Name: "L", Type: Strings},
		{Name: "M", Type: Map},
		{Name: "C", Type: String, OneOf: []string{"GET"}},
	}
	set := Default(Config{})
	set["Every"] = fake{parameters: every}
	for _, parameters := range []string{
		``, `{}`, `null`, `[]`, `{"S":1,"I":"2","N":3.5,"B":"true","O":{},"A":[],"U":"http://h/","X":null}`,
		`{"SLEEP_TIME_SECOND":"soon"}`, `{"URL":"http://u:p@h/?q","BODY":{"a":1}}`, "{\"S\":\"\xff\\ud800\\u0000\"}",
		`{"I":1e308}`, `{"N":"-0"}`, `{"U":"http://[::1%25lo]:80"}`, `{"S":{},"\u202e":1}`,
	} {
		for _, name := range set.Names() {
			f.Add(name, []byte(parameters))
		}
	}
	f.Fuzz(func(t *testing.T, name string, parameters []byte) {
		_, params, err := set.prepare(name, parameters)
		require.Equal(t, err, set.Check(name, parameters))
		if err != nil {
			require.ErrorAs(t, err, new(*flow.InvalidError))
			require.True(t, utf8.ValidString(err.Error()))
			require.Equal(t, readable(err.Error()), strings.Join(strings.Fields(err.Error()), " "))
			require.Less(t, len(err.Error()), 4<<10)
			return
		}
		for _, p := range set[name].Parameters() {
			requireType(t, p, params)
		}
	})
}

func requireType(t *testing.T, p Parameter, v Values) {
	t.Helper()
	if v[p.Name] == nil {
		require.False(t, p.Required)
	}
	switch p.Type {
	case String:
		v.String(p.Name)
	case Integer:
		v.Int(p.Name)
	case Number:
		if v[p.Name] != nil && p.Min != nil {
			require.GreaterOrEqual(t, v.Float(p.Name), *p.Min)
		}
	case Boolean:
		v.Bool(p.Name)
	case Strings:
		v.Strings(p.Name)
	case Map:
		v.Map(p.Name)
	case URL:
		if u := v.URL(p.Name); u != nil {
			require.NotEmpty(t, u.Hostname())
			require.Contains(t, []string{"http", "https"}, u.Scheme)
		}
	default:
		require.True(t, v[p.Name] == nil || json.Valid(v.JSON(p.Name)))
	}
}
