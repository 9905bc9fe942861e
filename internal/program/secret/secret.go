// Package secret has the secrets of a watcher, and keeps them out of what others see.
//
// A definition names a secret, ${{ secrets.TOKEN }}, and the watcher that runs the task
// puts its value there: no table ever has it. What comes back from the program is masked
// before it is stored or logged: its output, its error, what it logs and what it prints.
//
// # What is masked
//
// Every secret that the watcher had when it started or has handed out since, whichever
// task it was for: as it is, and as JSON, Go, a URL and base64 write it; of one with
// several lines each line that is long enough; and the beginning or the end of one where
// a text was cut. Of one that is replaced again and again these are its last values.
//
// # What is not
//
// A program may change a secret in other ways, print it letter by letter, or take it apart:
// masking is for accidents, not against programs that mean harm. Of a secret that is a
// structure, such as a JSON file, the parts are not known: each should be a secret of its
// own. What a program sends away is its task.
package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/flow"
)

// Prefix begins the name of an environment variable that is a secret.
const Prefix = "FLOWER_SECRET_"

// Bounds of a secret. A shorter one could be guessed from where it is masked, and masking
// it would hit ordinary words.
const (
	MinLength = 8
	maxLength = 64 << 10
)

// maxValues is how many values of one secret are masked, the last ones. With all those that a
// token has had which is replaced every few minutes, each line would take longer to mask the
// longer the watcher runs.
const maxValues = 20

// name is what a secret can be called: no dots and slashes, since it may be a file.
var name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

// Store has the secrets of a watcher. A nil one has none. Its methods may be called by
// many goroutines.
type Store struct {
	environ map[string]string // by name, without the prefix
	dir     string            // of files; empty is none

	mask atomic.Pointer[mask]
	mu   sync.Mutex
	seen map[string][]string // what is masked, by name, the last values last; guarded by mu
}

// New makes a store of the environment, "NAME=value" each, and of the files of a directory,
// if it is not empty. A file goes before a variable of the same name, and is read anew each
// time, so that it can be replaced. The warnings name secrets that cannot be used.
func New(environ []string, dir string) (s *Store, warnings []error, err error) {
	s = &Store{environ: make(map[string]string), dir: dir, seen: make(map[string][]string)}
	names := []string{}
	for _, pair := range environ {
		key, value, _ := strings.Cut(pair, "=")
		if n, is := strings.CutPrefix(key, Prefix); is && value != "" {
			s.environ[n] = value
			names = append(names, n)
		}
	}
	if dir != "" {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			if name.MatchString(e.Name()) { // of ..data and lost+found it is none
				names = append(names, e.Name())
			}
		}
	}
	for _, n := range names {
		if _, err := s.Get(n); err != nil { // it is masked from now on
			warnings = append(warnings, err)
		}
	}
	return s, warnings, nil
}

// Get returns the value of a secret, which is masked from then on. An error is a
// *flow.InvalidError, and never repeats the value.
func (s *Store) Get(n string) (string, error) {
	value, found, err := s.find(n)
	problem := ""
	switch {
	case err != nil:
		problem = "it cannot be read: " + err.Error()
	case !found:
		problem = "the watcher has none of that name: it looks for the environment variable " + Prefix + n +
			" and for a file in -secrets-dir"
	case len(longestLine(value)) < MinLength:
		problem = fmt.Sprintf("it has less than %d bytes (in its longest line), which is too short to be masked", MinLength)
	case len(value) > maxLength:
		problem = fmt.Sprintf("it has more than %d bytes", maxLength)
	case !utf8.ValidString(value) || strings.Contains(value, "\x00"):
		problem = "it is no text: encode it, as base64 for example"
	}
	if problem != "" {
		return "", &flow.InvalidError{Subject: "secret " + n, Problem: problem}
	}
	s.add(n, value)
	return value, nil
}

// longestLine matters, since what is printed is masked line by line.
func longestLine(value string) string {
	longest := ""
	for line := range strings.Lines(value) {
		if line = strings.Trim(line, "\r\n"); len(line) > len(longest) {
			longest = line
		}
	}
	return longest
}

// find looks for a secret. The one end of line that editors put there is no part of it.
func (s *Store) find(n string) (value string, found bool, err error) {
	if s == nil || !name.MatchString(n) {
		return "", false, nil
	}
	value, found = s.environ[n]
	if s.dir == "" {
		return value, found, nil
	}
	info, err := os.Stat(filepath.Join(s.dir, n))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return value, found, nil
	case err != nil:
		return "", false, err
	case !info.Mode().IsRegular():
		return "", false, errors.New("it is not a file")
	case info.Size() > maxLength+2:
		return strings.Repeat("x", maxLength+1), true, nil // too long, whatever it is
	}
	b, err := os.ReadFile(filepath.Join(s.dir, n))
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), err == nil, err
}

// add has a value of a secret masked from now on.
func (s *Store) add(n, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.seen[n], value); i >= 0 {
		s.seen[n] = append(slices.Delete(s.seen[n], i, i+1), value)
		return
	}
	s.seen[n] = append(s.seen[n], value)
	s.seen[n] = s.seen[n][max(0, len(s.seen[n])-maxValues):]
	values := make(map[string]bool)
	for _, last := range s.seen {
		for _, v := range last {
			values[v] = true
		}
	}
	s.mask.Store(newMask(values))
}

// masks returns what is masked now; nil is nothing.
func (s *Store) masks() *mask {
	if s == nil {
		return nil
	}
	return s.mask.Load()
}
