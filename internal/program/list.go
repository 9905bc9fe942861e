package program

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// listWidth is that of a terminal, in characters.
const listWidth = 100

// List writes the programs with their parameters, for people.
func (s Set) List(w io.Writer) error {
	out := bufio.NewWriter(w) // it keeps the error of the writes
	for _, name := range s.Names() {
		title := name
		if flag := s.OffWithout(name); flag != "" {
			title += " (off: the watcher needs " + flag + ")"
		}
		fmt.Fprintln(out, title)
		for _, p := range s[name].Parameters() {
			fmt.Fprintf(out, "  %s (%s)\n", p.Name, strings.Join(p.traits(), ", "))
			writeWrapped(out, "      ", p.Description+p.choice())
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "fixed: a request cannot replace what the definition says. public: it cannot have a secret in it.")
	return out.Flush()
}

// traits says in words what a parameter is.
func (p Parameter) traits() []string {
	traits := []string{string(p.Type)}
	switch {
	case p.Required:
		traits = append(traits, "required")
	case p.Default != nil:
		traits = append(traits, "default "+string(p.Default))
	}
	if p.Fixed {
		traits = append(traits, "fixed")
	}
	if p.Public {
		traits = append(traits, "public")
	}
	return traits
}

// choice says which values there are, if it is not any of the type.
func (p Parameter) choice() string {
	if len(p.OneOf) == 0 && p.Min == nil && p.Max == nil {
		return ""
	}
	wanted := p.wanted()
	return " " + strings.ToUpper(wanted[:1]) + wanted[1:] + "."
}

// writeWrapped writes a text in lines that begin alike.
func writeWrapped(w io.Writer, indent, text string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(indent+line+" "+word) > listWidth {
			fmt.Fprintln(w, indent+line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	fmt.Fprintln(w, indent+line)
}
