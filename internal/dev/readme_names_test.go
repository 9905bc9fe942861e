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

// What the README names is there: targets of make, files, and the example of a program.
func TestReadmeNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	readme, makefile := readTop(t, "README.md"), readTop(t, "Makefile")
	for _, m := range regexp.MustCompile("(?m)[`^]make ([a-z]+)").FindAllStringSubmatch(readme, -1) {
		require.Regexp(t, `(?m)^`+m[1]+`:.* ## `, makefile)
	}
	files := regexp.MustCompile("\\]\\(([^)#:]+)\\)|`((?:cmd|internal|migrations|docker)/[a-z./]*)`")
	for _, m := range files.FindAllStringSubmatch(readme, -1) {
		if path := m[1] + m[2]; path != "internal/program/greet.go" {
			_, err := os.Stat(filepath.Join(top, path))
			require.NoError(t, err)
		}
	}
	// Without what differs: there it is a comment, and outside of the package.
	plain := func(text string) string {
		return strings.Join(strings.Fields(strings.NewReplacer("//", "", "program.", "").Replace(text)), " ")
	}
	_, example, found := strings.Cut(readme, "type greet struct{}")
	require.True(t, found)
	example, _, _ = strings.Cut(example, "\n```")
	require.Contains(t, plain(readTop(t, "internal/program/doc.go")), plain(example))
}
