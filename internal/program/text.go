package program

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxQuoted is how much of what somebody typed an error repeats, in bytes: enough to
// recognise it.
const maxQuoted = 64

// quote shows s in an error: quoted, escaped, and not longer than is needed.
func quote(s string) string { return strconv.Quote(cut(s, maxQuoted)) }

// cut shortens s to at most n bytes, an ellipsis and whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// cutFront shortens s to its last n bytes, an ellipsis and whole characters.
func cutFront(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + wholeRunes(s[len(s)-n:])
}

// wholeRunes takes off what is left of a character where s was cut at its beginning.
func wholeRunes(s string) string {
	for n := 0; n < min(len(s), utf8.UTFMax); n++ {
		if utf8.RuneStart(s[n]) {
			return s[n:]
		}
	}
	return s
}

// readable makes one line of text of whatever came from outside: valid UTF-8 without
// control characters, and without those that turn the direction of what follows.
func readable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Join(strings.Fields(s), " ")
}

// textOf returns a JSON value as a text: a string as it is, others as they are written.
// (The original encoded strings once more, so that a receiver got "{\"a\":1}" for {"a":1}.)
func textOf(value json.RawMessage) []byte {
	if len(value) > 0 && kindOf(value) == "a string" {
		return []byte(unquote(value))
	}
	return value
}
