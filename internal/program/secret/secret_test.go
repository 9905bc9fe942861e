package secret

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// canary is a secret with all that an encoding could change.
const canary = `cAn4ry "k3y"/\&<+>=ü%`

func newStore(t testing.TB, environ ...string) *Store {
	t.Helper()
	s, warnings, err := New(environ, "")
	require.NoError(t, err)
	require.Empty(t, warnings)
	return s
}

func file(t *testing.T, dir, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
}

func get(t *testing.T, s *Store, name string) string {
	t.Helper()
	value, err := s.Get(name)
	require.NoError(t, err)
	return value
}

func TestGet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "FROM_FILE", "of the file\n")
	file(t, dir, "BOTH", "both: file\r\n")
	file(t, dir, "LINES", "first line\nsecond line\n\n")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "..data"), 0o700)) // as Kubernetes has it
	file(t, dir, "..data/LINKED", "linked value")
	require.NoError(t, os.Symlink("..data/LINKED", filepath.Join(dir, "LINKED")))
	s, warnings, err := New([]string{
		"FLOWER_SECRET_FROM_ENV=of the environment", "FLOWER_SECRET_BOTH=both: environment", "FLOWER_SECRET_EMPTY=", "FLOWER_SECRETS_DIR=/somewhere", "HOME=/home/of/somebody",
	}, dir)
	require.NoError(t, err)
	require.Empty(t, warnings)
	for name, want := range map[string]string{
		"FROM_FILE": "of the file", "FROM_ENV": "of the environment", "BOTH": "both: file", "LINES": "first line\nsecond line\n", "LINKED": "linked value",
	} {
		require.Equal(t, strings.Repeat(stars+"\n", 1+strings.Count(want, "\n"))[:len(s.Mask(want))], s.Mask(want), "it was masked from the start")
		require.Equal(t, want, get(t, s, name))
	}
	for _, name := range []string{"MISSING", "EMPTY", "HOME", "DIR", "", "..", "../x", "..data/LINKED", "a b", strings.Repeat("x", 200)} {
		_, err = s.Get(name)
		var invalid *flow.InvalidError
		require.ErrorAs(t, err, &invalid, name)
		require.Equal(t, "secret "+name+": the watcher has none of that name: it looks for the environment variable FLOWER_SECRET_"+
			name+" and for a file in -secrets-dir", err.Error())
	}

	// A file may be replaced; what it was is still masked.
	file(t, dir, "FROM_FILE", "another value")
	require.Equal(t, "another value", get(t, s, "FROM_FILE"))
	require.Equal(t, "*** and ***", s.Mask("of the file and another value"))
}

// Of one that is replaced again and again the last values are masked: with all of them that
// would take longer and longer.
func TestGet_ReplacedAgainAndAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "KEPT", "never replaced")
	s, _, err := New(nil, dir)
	require.NoError(t, err)
	value := func(i int) string { return fmt.Sprintf("value %06d", i) }
	const n = 5 * maxValues
	for i := range n {
		file(t, dir, "TOKEN", value(i))
		require.Equal(t, value(i), get(t, s, "TOKEN"))
		require.Equal(t, value(i), get(t, s, "TOKEN"), "which is no other value")
	}
	for i := range n {
		want := stars
		if i < n-maxValues {
			want = value(i)
		}
		require.Equal(t, want, s.Mask(value(i)))
	}
	require.Equal(t, stars, s.Mask("never replaced"))

	// The oldest of them comes back, and is the newest: the next one is the oldest now.
	for _, v := range []string{value(n - maxValues), "another value"} {
		file(t, dir, "TOKEN", v)
		require.Equal(t, v, get(t, s, "TOKEN"))
	}
	require.Equal(t, stars, s.Mask(value(n-maxValues)))
	require.Equal(t, value(n-maxValues+1), s.Mask(value(n-maxValues+1)))
}

func TestGet_WhatCannotBeASecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file(t, dir, "BINARY", "\xff\xfe12345678")
	file(t, dir, "NUL", "1234567\x008")
	file(t, dir, "LONG", strings.Repeat("x", maxLength+1))
	file(t, dir, "VERY_LONG", strings.Repeat("x", 10*maxLength))
	file(t, dir, "LONGEST", strings.Repeat("x", maxLength)+"\n")
	file(t, dir, "SHORT", "1234567\n")
	file(t, dir, "SHORT_LINES", "1234567\r\n1234567\n")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "FOLDER"), 0o700))
	s, warnings, err := New([]string{"FLOWER_SECRET_TINY=pw"}, dir)
	require.NoError(t, err)
	require.Len(t, warnings, 8)
	for name, want := range map[string]string{
		"BINARY": "it is no text: encode it, as base64 for example", "NUL": "it is no text: encode it, as base64 for example",
		"LONG": "it has more than 65536 bytes", "VERY_LONG": "it has more than 65536 bytes",
		"SHORT": "it has less than 8 bytes (in its longest line), which is too short to be masked", "TINY": "it has less than 8 bytes (in its longest line), which is too short to be masked",
		"SHORT_LINES": "it has less than 8 bytes (in its longest line), which is too short to be masked",
		"FOLDER":      "it cannot be read: it is not a file",
	} {
		_, err = s.Get(name)
		require.EqualError(t, err, "secret "+name+": "+want)
	}
	require.Len(t, get(t, s, "LONGEST"), maxLength)

	_, _, err = New(nil, filepath.Join(dir, "no such directory"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestNilStoreHasNoSecrets(t *testing.T) {
	t.Parallel()
	var s *Store
	require.Equal(t, "text", s.Mask("text"))
	require.JSONEq(t, `{"a": 1}`, string(s.MaskJSON(json.RawMessage(`{"a": 1}`))))
	_, err := s.Get("X")
	require.ErrorContains(t, err, "none of that name")
}

// written is how a secret may come back from a program.
func written(value string) map[string]string {
	encoded, _ := json.Marshal(value)
	all := map[string]string{
		"as it is":      value,
		"JSON":          string(encoded),
		"JSON as it is": inJSON(value, false),
		"JSON in JSON":  inJSON(inJSON(value, true), true),
		"Go":            strconv.Quote(value),
		"query":         "https://h/?q=" + url.QueryEscape(value),
		"path":          "https://h/" + url.PathEscape(value) + "/x",
		"in one line":   strings.Join(strings.Fields(value), " "),
		"user":          "https://" + url.UserPassword("me", value).String() + "@h/",
	}
	for before := range 6 {
		for after := range 4 {
			long := strings.Repeat("u", before) + value + strings.Repeat("v", after)
			all[fmt.Sprintf("base64 %d %d", before, after)] = base64.StdEncoding.EncodeToString([]byte(long))
			all[fmt.Sprintf("base64 for URLs %d %d", before, after)] = base64.RawURLEncoding.EncodeToString([]byte(long))
		}
	}
	return all
}

func TestMask_Forms(t *testing.T) {
	t.Parallel()
	for _, value := range []string{canary, "plain-s3cret", "12345678", "漢字の秘密です", "four  words\twith blanks"} {
		s := newStore(t, "FLOWER_SECRET_X="+value)
		for form, text := range written(value) {
			got := s.Mask("before " + text + " after " + text)
			require.Equal(t, 2, strings.Count(got, stars), "%s: %q", form, got)
			require.True(t, strings.HasPrefix(got, "before "), got)
			require.Contains(t, got, " after ")
			// At most a letter of base64 is left of it on each side.
			require.Less(t, len(got), len("before  after ")+2*len(stars)+2*len("https://me:@h/?q=")+40, "%s: %q", form, got)
			require.NotContains(t, got, value)
		}
		require.NotEqual(t, stars, s.Mask(hex.EncodeToString([]byte(value))), "of a hash, too, nobody knows what it is made of")
	}
}

// As others write it, who have other ways to do so.
func TestMask_InJSONOfOthers(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_X="+canary)
	for _, text := range []string{
		`cAn4ry \"k3y\"/\\&<+>=ü%`, `cAn4ry \"k3y\"/\\\u0026\u003c+\u003e=ü%`,
		`cAn4ry \\\"k3y\\\"/\\\\&<+>=ü%`, `cAn4ry \\\"k3y\\\"/\\\\\\u0026\\u003c+\\u003e=ü%`,
	} {
		require.Equal(t, "***", s.Mask(text), text)
	}
}

func TestMask_Lines(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_KEY=-----BEGIN KEY-----\r\nMIIabcdefghijkl\nshort\nMIImnopqrstuvwx\n-----END KEY-----\n")
	require.Equal(t, "***\n***\nshort\n***\r\n***\n", s.Mask("-----BEGIN KEY-----\nMIIabcdefghijkl\nshort\nMIImnopqrstuvwx\r\n-----END KEY-----\n"))
	require.Equal(t, "line 2: *** of it", s.Mask("line 2: MIIabcdefghijkl of it"))
}

// What is long is broken into lines.
func TestMask_Base64InLines(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("0123456789abcdefghijk", 10)
	s := newStore(t, "FLOWER_SECRET_X="+value)
	encoded := base64.StdEncoding.EncodeToString([]byte(value))
	for _, width := range []int{64, 76} {
		var lines []string
		for rest := encoded; rest != ""; rest = rest[min(width, len(rest)):] {
			lines = append(lines, rest[:min(width, len(rest))])
		}
		text := s.Mask(strings.Join(lines, "\n"))
		require.Equal(t, strings.Repeat("***\n", len(lines)-1)+"***", text, width)
	}
}

func TestMask_SeveralAtOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_A=abcdefghij", "FLOWER_SECRET_B=fghijklmno", "FLOWER_SECRET_C=abcdefghijXYZ", "FLOWER_SECRET_D=aaaaaaaa")
	require.Equal(t, "<***>", s.Mask("<abcdefghijklmno>"), "they overlap")
	require.Equal(t, "<***>", s.Mask("<abcdefghijXYZ>"), "one begins with another")
	require.Equal(t, "<***> <***>", s.Mask("<abcdefghij> <abcdefghijfghijklmno>"))
	require.Equal(t, "<***>", s.Mask("<"+strings.Repeat("a", 50)+">"))
	require.Empty(t, s.Mask(""))
	require.Equal(t, "a", s.Mask("a"))
}

// Whoever cuts a text may cut a secret in two.
func TestMask_Cuts(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_X=0123456789abcdef")
	long := strings.Repeat("long ", 200)
	for text, want := range map[string]string{
		long + "0123456789abcde":               long + "***",
		long + "012345":                        long + "***",
		long + "01234":                         long + "01234", // too little to tell
		"6789abcdef and more " + long:          "*** and more " + long,
		"89abcdef" + long + "0123456789abcd":   "***" + long + "***",
		`"0123456789…" is not a number`:        `"***…" is not a number`,
		"… 6789abcdef":                         "… 6789abcdef", // nobody cuts like that
		"log: …9abcdef, then 012345678… (cut)": "log: …***, then ***… (cut)",
		"…abcdef0123456789…":                   "…******…",
		// Of a short text they are words.
		"abcdef": "abcdef", "the key is 0123456789abcde": "the key is 0123456789abcde", "": "",
		long + "123456789abcde": long + "123456789abcde", // out of the middle: a program that means harm
	} {
		require.Equal(t, want, s.Mask(text), text)
	}
	// What a cut leaves may be within itself.
	s = newStore(t, "FLOWER_SECRET_X=abcdefghabcdefgh")
	require.Equal(t, "…***…", s.Mask("…abcdefghabcdefg…"))
	require.Equal(t, "…***…", s.Mask("…abcdefgh…"))
}

func TestMaskJSON(t *testing.T) {
	t.Parallel()
	s := newStore(t, "FLOWER_SECRET_X="+canary, "FLOWER_SECRET_PIN=1234567890")
	quoted, _ := json.Marshal(canary)
	nested, _ := json.Marshal(string(quoted))
	for raw, want := range map[string]string{
		`null`: `null`, `{"a": 1.50, "b": [true, "x"]}`: `{"a": 1.50, "b": [true, "x"]}`, // as it was written
		string(quoted): `"***"`,
		string(nested): `"\"***\""`,
		`{"a": ["say ` + string(quoted[1:]) + `]}`: `{"a":["say ***"]}`,
		`{` + string(quoted) + `: 1}`:              `{"***":1}`,
		`{"n": 1234567890, "m": 1.5e3}`:            `{"m":1.5e3,"n":"***"}`,
		`["\u0031234567890", "<&>"]`:               `["***","<&>"]`,
		`not JSON but ` + canary:                   `not JSON but ***`,
	} {
		got := string(s.MaskJSON(json.RawMessage(raw)))
		require.Equal(t, want, got, raw)
	}
	require.Nil(t, s.MaskJSON(nil))
}

// Whatever is written around a secret, nothing of it is left; and what has no secret in it
// is as it was.
func FuzzMask(f *testing.F) {
	f.Add("before", "after", "s3cr3t-t0ken")
	f.Add(`{"a":"`, `"}`, `"quoted"\`)
	f.Add("…", "…", "ab…cdefgh")
	f.Add("s3cr3t-", "t0ken", "s3cr3t-t0ken")
	f.Add("aaa", "aaa", "aaaaaaaa")
	f.Fuzz(func(t *testing.T, before, after, value string) {
		if !utf8.ValidString(value) || strings.Contains(value, "\x00") || len(longestLine(value)) < MinLength || len(value) > maxLength {
			return
		}
		s := newStore(t, "FLOWER_SECRET_X="+value)
		text := s.Mask(before + value + after)
		if line := longestLine(value); !strings.Contains(line, "*") {
			require.NotContains(t, text, line)
		}
		raw, err := json.Marshal(map[string]any{before: []any{value + after, 1, nil}})
		require.NoError(t, err)
		masked := s.MaskJSON(raw)
		require.True(t, json.Valid(masked), "%s", masked)
		other := newStore(t, "FLOWER_SECRET_X=\u2603 nobody has this \u2603")
		if !strings.Contains(before, "this") && !strings.Contains(after, "\u2603") {
			require.Equal(t, before+"|"+after, other.Mask(before+"|"+after))
		}
	})
}

func BenchmarkMask(b *testing.B) {
	var environ []string
	for i := range 20 {
		environ = append(environ, fmt.Sprintf("FLOWER_SECRET_S%d=%s", i, base64.StdEncoding.EncodeToString([]byte(fmt.Sprint("secret number ", i*i*i*7919)))))
	}
	s := newStore(b, environ...)
	text := strings.Repeat("2026-11-24 19:27:25 INFO 1034 rows were read from orders.csv\n", 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s.Mask(text)
	}
}
