// Package reload keeps what was read from files, and reads it again when they change, so
// that tokens and certificates are replaced without a restart.
//
// What is broken never replaces what works: a file that cannot be read or makes no sense
// is logged, once, and what was read before it counts until it is mended.
package reload

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// pause is how old an answer may be before somebody looks at the files again. Looking
// costs a microsecond, and nobody replaces a file more often.
const pause = time.Second

// Files is what was read from some files.
type Files[T any] struct {
	paths []string
	read  func() (T, error)
	log   *slog.Logger

	mu     sync.Mutex // guards the rest
	value  T
	looked time.Time
	state  string // of the files when they were last read
	failed string // what was wrong with them then
}

// Open reads the files; that must work. read is called again, never twice at once, when
// one of the paths is another file than before, or was written to.
func Open[T any](paths []string, read func() (T, error), log *slog.Logger) (*Files[T], error) {
	f := &Files[T]{paths: paths, read: read, log: log, looked: time.Now()}
	f.state = f.look() // before they are read: what is written meanwhile is read again
	var err error
	f.value, err = read()
	return f, err
}

// Get returns what the files say, or said when they last made sense.
func (f *Files[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= pause {
		f.looked = now
		f.refresh(false)
	}
	return f.value
}

// Reload reads the files now, whether they seem to have changed or not.
func (f *Files[T]) Reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(true)
}

// refresh reads the files again if they have changed, or did not make sense: a
// permission may have been mended. mu is held.
func (f *Files[T]) refresh(always bool) {
	state := f.look()
	if state == f.state && f.failed == "" && !always {
		return
	}
	f.state = state
	value, err := f.read()
	if err != nil {
		if f.failed != err.Error() {
			f.log.Error("what was read before still counts, since a new file cannot be used", "err", err)
		}
		f.failed = err.Error()
		return
	}
	f.value, f.failed = value, ""
	f.log.Info("read again", "files", f.paths)
}

// look returns what changes when a file does.
func (f *Files[T]) look() string {
	var state string
	for _, path := range f.paths {
		info, err := os.Stat(path) // by way of links, which is how some systems swap files
		if err != nil {
			state += err.Error() + "\n"
			continue
		}
		state += fmt.Sprintln(info.ModTime().UnixNano(), info.Size(), identity(info))
	}
	return state
}
