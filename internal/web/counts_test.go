package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// Where counting takes long, a page does not wait for it but for the first time: it shows
// what was counted last, and the next one what was counted meanwhile.
func TestCounts_AreKeptWhereTheyAreDear(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, takes := 0, 100*time.Millisecond
		var fails error
		store := &fakeStore{}
		store.lists.count = func() (flow.FlowCounts, error) {
			asked++
			n := asked
			time.Sleep(takes)
			return flow.FlowCounts{All: flow.Count{N: n}}, fails
		}
		s := newSite(t, Config{}, store)
		all := func(path string) (string, time.Duration) {
			begin := time.Now()
			page := get(s, path).Body.String()
			_, page, _ = strings.Cut(page, `All <span class="n">`)
			n, _, _ := strings.Cut(page, "<")
			return n, time.Since(begin)
		}
		check := func(path, want string, wantTook time.Duration) {
			t.Helper()
			n, took := all(path)
			require.Equal(t, want, n)
			require.Equal(t, wantTook, took)
		}
		check("/flows", "1", takes)
		check("/flows?status=failed", "1", 0) // the same counts
		check("/flows?taskId=w", "2", takes)
		time.Sleep(2 * newCount)
		check("/flows", "1", 0)
		check("/flows", "1", 0) // it is being counted
		time.Sleep(2 * takes)
		check("/flows", "3", 0)
		time.Sleep(2 * oldestCount)
		check("/flows", "4", takes)

		s.generation.Add(1) // somebody has changed something here
		check("/flows", "5", takes)

		time.Sleep(2 * newCount)
		fails = fmt.Errorf("x: %w", flow.ErrUnavailable)
		check("/flows", "5", 0)
		time.Sleep(2 * takes)
		require.Equal(t, http.StatusServiceUnavailable, get(s, "/flows").Code)

		takes, fails = time.Millisecond, nil
		check("/flows", "8", takes)
		check("/flows", "9", takes) // cheap ones are always of now
	})
}

func TestCounts_AreNotKeptForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		store.lists.count = func() (flow.FlowCounts, error) {
			time.Sleep(time.Second)
			return flow.FlowCounts{}, nil
		}
		s := newSite(t, Config{}, store)
		for i := range 3 * maxCounts {
			get(s, fmt.Sprintf("/flows?taskId=w%d", i))
			require.LessOrEqual(t, len(s.counts.kept), maxCounts)
		}
	})
}
