package request

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/problem"
)

// scan looks in a body for what encoding/json would accept or mend and the database
// would refuse: bad UTF-8, U+0000 and lone surrogates in escapes, endless nesting. It
// trusts nothing: whether the text is JSON at all is found out later.
func scan(text []byte, example string) *problem.Failure {
	if at := invalidUTF8(text); at >= 0 {
		return malformedAt(text, at, "it is not UTF-8", example)
	}
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case 0:
			return malformedAt(text, i, "it contains U+0000", example)
		case '{', '[':
			if depth++; depth > maxDepth {
				return malformedAt(text, i, "it is nested deeper than "+strconv.Itoa(maxDepth)+" levels", example)
			}
		case '}', ']':
			depth--
		case '"':
			end, wrong := scanString(text, i+1)
			if wrong != "" {
				return malformedAt(text, end, wrong, example)
			}
			i = end
		}
	}
	return nil
}

// scanString returns the place of the quote that ends a string, given the place after
// the one that begins it; or the place of a problem.
func scanString(text []byte, i int) (int, string) {
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i, ""
		case 0:
			return i, "it contains U+0000"
		case '\\':
			n, wrong := scanEscape(text[i:])
			if wrong != "" {
				return i, wrong
			}
			i += n - 1
		}
	}
	return i, ""
}

// scanEscape returns the length of the escape that text begins with.
func scanEscape(text []byte) (int, string) {
	r, ok := unicodeEscape(text)
	switch {
	case !ok: // \n and the like; what is no escape at all is a later error
		return 2, ""
	case r == 0:
		return 0, "it contains U+0000"
	case !utf16.IsSurrogate(r):
		return 6, ""
	}
	low, ok := unicodeEscape(text[6:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return 0, "it contains half of a surrogate pair"
	}
	return 12, ""
}

// unicodeEscape reads an escape like \u00e9 at the beginning of text.
func unicodeEscape(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), err == nil
}

// invalidUTF8 returns the place of the first byte that is not UTF-8, or -1.
func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// malformedAt says where a body is wrong, for people (line and column) and for programs
// (byte, from 0).
func malformedAt(text []byte, at int, wrong, example string) *problem.Failure {
	at = max(0, min(at, len(text)))
	before := text[:at]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return problem.MalformedBody.Because("the body is not valid JSON at line %d, column %d (byte %d): %s; send for example %s",
		line, column, at, wrong, example)
}
