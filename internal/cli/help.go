package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// writeHelp prints the commands, and every setting by group: flag, variable, what it is
// for, default.
func (f *Flags) writeHelp(w io.Writer, commands []Command) {
	fmt.Fprintf(w, "%s: %s\n\nUsage: %s\n", f.name, f.summary, strings.TrimSpace(f.name+" [flags] "+f.args.form))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(commands) > 0 {
		fmt.Fprintf(w, "       %[1]s COMMAND [flags]   (%[1]s COMMAND -help tells more)\n\nCommands\n", f.name)
		for _, c := range commands {
			fmt.Fprintf(table, "  %s\t%s\n", c.Name, c.Summary)
		}
		_ = table.Flush()
	}
	for _, group := range f.groups() {
		fmt.Fprintf(table, "\n%s\n", group)
		for _, s := range f.settings {
			if s.group != group {
				continue
			}
			usage := s.usage
			if s.def != "" {
				usage += " (default " + s.def + ")"
			}
			fmt.Fprintf(table, "  %s\t%s\t%s\n", strings.TrimSpace("-"+s.name+" "+s.arg), s.env, usage)
		}
	}
	_ = table.Flush() // to stdout: nobody could be told
	fmt.Fprintf(w, "\nOne dash or two. A flag beats its environment variable, which beats the default.\n")
	for i, example := range f.examples {
		if i == 0 {
			fmt.Fprintf(w, "\nExamples\n")
		}
		fmt.Fprintf(w, "  %s\n", example)
	}
	fmt.Fprintf(w, "\nExit codes: %s\n", f.codes)
}

// groups returns the headings in the order in which they were added, the one of
// -version last.
func (f *Flags) groups() []string {
	var groups []string
	seen := map[string]bool{f.settings[0].group: true}
	for _, s := range f.settings {
		if !seen[s.group] {
			seen[s.group] = true
			groups = append(groups, s.group)
		}
	}
	return append(groups, f.settings[0].group)
}

// writeConfig prints each setting with its value and where that came from.
func (f *Flags) writeConfig(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range f.settings {
		if s.group == f.settings[0].group {
			continue
		}
		from := string(s.source)
		if s.source == fromEnv {
			from += " " + s.env
		}
		fmt.Fprintf(table, "-%s\t%s\t%s\n", s.name, s.value, from)
	}
	_ = table.Flush()
}
