package postgres

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lib/pq"
)

// maxErrorPart bounds each part of a server's error, so that all of them are shown.
const maxErrorPart = 1500

// serverError writes an error of the server for a person: what happened with its
// SQLSTATE, and in lines of their own the details, and where in the statement it was.
func serverError(e *pq.Error, statement string) string {
	lines := []string{fmt.Sprintf("%s (SQLSTATE %s)", shorten(e.Message), e.Code)}
	for _, part := range []struct{ name, text string }{
		{"DETAIL", e.Detail}, {"HINT", e.Hint}, {"CONTEXT", e.Where},
	} {
		if part.text != "" {
			lines = append(lines, part.name+": "+shorten(part.text))
		}
	}
	if at, err := strconv.Atoi(e.Position); err == nil {
		lines = append(lines, position(statement, at-len(prefix)))
	}
	return strings.Join(lines, "\n")
}

// position shows where the n-th character of a statement is, counted from 1.
func position(statement string, n int) string {
	for i, line := range strings.Split(statement, "\n") {
		length := utf8.RuneCountInString(line) + 1
		if n <= length {
			return fmt.Sprintf("AT: line %d, column %d: %s", i+1, max(n, 1), shorten(around(line, n)))
		}
		n -= length
	}
	return "AT: the end"
}

// around returns a line from shortly before its n-th character on.
func around(line string, n int) string {
	const before = 40
	r := []rune(line)
	if n <= before || n > len(r) {
		return line
	}
	return "…" + string(r[n-before:])
}

func shorten(s string) string {
	if len(s) <= maxErrorPart {
		return s
	}
	return strings.ToValidUTF8(s[:maxErrorPart], "") + "…"
}
