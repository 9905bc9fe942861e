package definition

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is a mistake in a file.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line"` // from 1, as the column, which counts characters
	Column  int    `json:"column"`
	Message string `json:"message"`
}

// String says it as compilers do.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems are all mistakes that were found, file by file.
type Problems []Problem

// Error has a line for each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Sort orders them by file and place.
func (p Problems) Sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// add takes a mistake at a node of a file.
func (p *Problems) add(file string, n *node, format string, args ...any) {
	*p = append(*p, Problem{File: file, Line: n.line, Column: n.column, Message: fmt.Sprintf(format, args...)})
}

// maxShown is how many bytes of a value a message repeats.
const maxShown = 80

// shown quotes a text for a message.
func shown(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
