package web

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// watchersView is what /watchers shows: whether Flower is healthy.
type watchersView struct {
	Rows    []watcherRow
	Workers int // of those that live
	Busy    int
	Share   float64
	Full    string // "3 of 5 workers busy"
	Alerts  []alert

	Check     flow.Check
	CheckedAt time.Time
	Repaired  time.Time
	Rules     []flow.BrokenRule // that are broken, else that were
	Storage   flow.Storage
	Tables    []tableRow
	Size      string
	Version   string
}

// tableRow is a table with its size.
type tableRow struct {
	flow.TableSize
	RowWords string
	Size     string
	Share    float64 // of the largest, in percent
}

// showWatchers is GET /watchers.
func (s *Site) showWatchers(r *http.Request, sh *shell) (any, error) {
	list, err := s.store.Watchers(r.Context())
	if err != nil {
		return nil, err
	}
	a, err := s.attention(r.Context())
	if err != nil {
		return nil, err
	}
	storage, err := s.store.Storage(r.Context())
	if err != nil {
		return nil, err
	}
	v := newWatchersView(list, a, storage)
	v.Version = s.cfg.Version
	sh.Title, sh.Active, sh.AsOf, sh.Every = "Watchers", "Watchers", storage.AsOf, everyNow
	return v, nil
}

func newWatchersView(list []flow.WatcherState, a flow.Attention, storage flow.Storage) watchersView {
	v := watchersView{Rows: watcherRows(list), Alerts: newAlerts(a), Check: a.Check, Storage: storage, Size: bytesWords(storage.Size)}
	for _, w := range list {
		if w.State == "alive" || w.State == "late" {
			v.Workers += w.Workers
			v.Busy += w.Busy
		}
	}
	v.Share = 100 * float64(min(v.Busy, v.Workers)) / float64(max(1, v.Workers))
	v.Full = fmt.Sprintf("%d of %s busy", v.Busy, plural(v.Workers, "worker", "workers"))
	if v.Check.Done {
		// To the second: the two clocks are not read at the same moment.
		v.CheckedAt = storage.AsOf.Add(-a.Check.Age).Round(time.Second)
	}
	switch {
	case len(a.Check.Broken) > 0:
		v.Rules = a.Check.Broken
	case len(a.Check.Repaired) > 0:
		v.Rules, v.Repaired = a.Check.Repaired, storage.AsOf.Add(-a.Check.RepairedAge).Round(time.Second)
	}
	largest := int64(1)
	for _, t := range storage.Tables {
		largest = max(largest, t.Bytes)
	}
	for _, t := range storage.Tables {
		row := tableRow{t, "", bytesWords(t.Bytes), 100 * float64(t.Bytes) / float64(largest)}
		if t.Rows >= 0 {
			row.RowWords = "≈ " + roughly(t.Rows)
		}
		v.Tables = append(v.Tables, row)
	}
	return v
}

// roughly writes a number of which only the first digits are known: 12, 3,400, 1.2 million.
func roughly(n int64) string {
	switch {
	case n < 100:
		return fmt.Sprint(n)
	case n >= 1_000_000:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/1e6), ".0") + " million"
	}
	step := int64(math.Pow10(len(fmt.Sprint(n)) - 2))
	return thousands(int((n + step/2) / step * step))
}

// bytesWords writes 8 KiB, 1.2 GiB.
func bytesWords(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	x, i := float64(n), 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	if x < 10 && i > 0 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0") + " " + units[i]
	}
	return fmt.Sprintf("%.0f %s", x, units[i])
}
