package commandtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Lines are a log in JSON.
type Lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Line is one of them.
type Line map[string]any

// Write adds to the log.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// All returns the complete lines.
func (l *Lines) All() []Line {
	var all []Line
	for text := range strings.Lines(l.String()) {
		var ln Line
		if json.Unmarshal([]byte(text), &ln) == nil {
			all = append(all, ln)
		}
	}
	return all
}

// With returns the lines whose message begins so, with attributes, "name=value".
func (l *Lines) With(msg string, attrs ...string) []Line {
	return slices.DeleteFunc(l.All(), func(ln Line) bool {
		text, _ := ln["msg"].(string)
		return !strings.HasPrefix(text, msg) || slices.ContainsFunc(attrs, func(a string) bool {
			name, value, _ := strings.Cut(a, "=")
			return fmt.Sprint(ln[name]) != value
		})
	})
}
