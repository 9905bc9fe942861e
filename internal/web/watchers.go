package web

import (
	"fmt"

	"github.com/d-tsuji/flower/internal/flow"
)

// watchers are those that are known, by their ids.
type watchers map[string]flow.WatcherState

func byID(list []flow.WatcherState) watchers {
	w := make(watchers, len(list))
	for _, one := range list {
		w[one.ID] = one
	}
	return w
}

// name is what people call a watcher: its host and process.
func (w watchers) name(id string) string {
	if one, ok := w[id]; ok {
		return fmt.Sprintf("%s:%d", one.Host, one.PID)
	}
	if id == "" {
		return ""
	}
	return "watcher " + short(id)
}

// odd says what is odd about a running task.
func (w watchers) odd(t flow.TaskState) string {
	if t.WatcherID == "" {
		return "Unowned"
	}
	one, ok := w[t.WatcherID]
	if !ok || one.State == "dead" {
		return "No heartbeat"
	}
	return ""
}
