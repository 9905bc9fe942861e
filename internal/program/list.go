package program

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// List writes the programs with their parameters, for people.
func (s Set) List(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range s.Names() {
		title := name
		if flag := s.OffWithout(name); flag != "" {
			title += " (off: the watcher needs " + flag + ")"
		}
		fmt.Fprintln(table, title)
		for _, p := range s[name].Parameters() {
			need := "optional"
			switch {
			case p.Required:
				need = "required"
			case p.Default != nil:
				need = "default " + string(p.Default)
			}
			if p.Fixed {
				need += ", fixed"
			}
			if p.Public {
				need += ", public"
			}
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", p.Name, p.Type, need, p.Description)
		}
	}
	return table.Flush() // it kept the error of the writes
}
