package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tables of the configuration have each setting with its variable and its default.
func TestReadmeHasEverySetting(t *testing.T) {
	t.Parallel()
	readme := readTop(t, "README.md")
	known := map[string]bool{}
	line := regexp.MustCompile(`(?m)^  -([a-z-]+)(?: \S+)?  +([A-Z][A-Z_]+)?.*?(?:\(default (\S+)\))?$`)
	for _, program := range []string{"register", "watcher"} {
		help, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), "-help").Output()
		require.NoError(t, err)
		settings, _, found := bytes.Cut(help, []byte("\nOther\n"))
		require.True(t, found)
		for _, m := range line.FindAllSubmatch(settings, -1) {
			name, variable, def := string(m[1]), string(m[2]), string(m[3])
			if variable != "" {
				variable = "`" + variable + "`"
			}
			row := strings.Join(strings.Fields(fmt.Sprintf("| `-%s` | %s | %s |", name, variable, def)), " ")
			require.Contains(t, readme, row, program)
			known[name] = true
		}
	}
	require.Greater(t, len(known), 20)
	for _, m := range regexp.MustCompile("(?m)^\\| `-([a-z-]+)` \\|").FindAllStringSubmatch(readme, -1) {
		require.True(t, known[m[1]], "nobody has the setting -%s", m[1])
	}
}

// What the pages name is there: targets of make, files, and the example of a program.
func TestReadmeNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	makefile := readTop(t, "Makefile")
	target, file := regexp.MustCompile("(?m)[`^]make ([a-z0-9-]+)"), regexp.MustCompile("`((?:cmd|internal|migrations|docker)/[a-z./]*)`")
	for _, page := range pages(t) {
		text := readTop(t, page)
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			require.Regexp(t, `(?m)^`+m[1]+`:.* ## `, makefile, page)
		}
		for _, m := range file.FindAllStringSubmatch(text, -1) {
			if m[1] != "internal/program/greet.go" {
				_, err := os.Stat(filepath.Join(top, m[1]))
				require.NoError(t, err, page)
			}
		}
	}
	// Without what differs: there it is a comment, and outside of the package.
	plain := func(text string) string {
		return strings.Join(strings.Fields(strings.NewReplacer("//", "", "program.", "").Replace(text)), " ")
	}
	_, example, found := strings.Cut(readTop(t, "internal/program/README.md"), "type greet struct{}")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "\n```")
	require.Contains(t, plain(readTop(t, "internal/program/doc.go")), plain(example))
}
