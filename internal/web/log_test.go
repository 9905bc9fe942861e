package web

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// longLog is a store whose task has a log of so many lines, each of some bytes.
func longLog(lines, size int) *fakeStore {
	at := time.Date(2026, 11, 23, 3, 12, 1, 0, time.UTC)
	store := fullStore("plain")
	store.log = func(f flow.LogFilter) (flow.LogPage, error) {
		page := flow.LogPage{Attempt: max(1, f.Attempt)}
		add := func(no int64) bool {
			page.More = len(page.Lines) == f.Limit
			if !page.More {
				text := fmt.Sprintf("line %d ", no)
				page.Lines = append(page.Lines, flow.LogLine{No: no, At: at, Stream: flow.StreamStdout, Text: text + strings.Repeat("x", max(0, size-len(text)))})
			}
			return !page.More
		}
		switch {
		case f.After != nil:
			for no := *f.After + 1; no <= int64(lines) && add(no); no++ {
			}
		default:
			last := int64(lines)
			if f.Before > 0 {
				last = f.Before - 1
			}
			for no := last; no >= 1 && add(no); no-- {
			}
			slices.Reverse(page.Lines)
		}
		return page, nil
	}
	return store
}

// One can go through a log of any length from its end to its beginning and back.
func TestLogPages(t *testing.T) {
	t.Parallel()
	for _, size := range []int{20, 2000} {
		s := newSite(t, Config{}, longLog(2500, size))
		read := func(href string) logView {
			q := query{sent(http.MethodGet, "/x"+href, nil).URL.Query()}
			v, err := s.readLog(t.Context(), flow.TaskKey{Flow: "plain", Seq: 3}, q, logPage)
			require.NoError(t, err)
			return v
		}
		var back, forth []int64
		v := read("?attempt=1")
		require.Empty(t, v.Later)
		for {
			for _, l := range slices.Backward(v.Lines) {
				back = append(back, l.No)
			}
			if v.Earlier == "" {
				break
			}
			v = read(v.Earlier)
		}
		for {
			for _, l := range v.Lines {
				forth = append(forth, l.No)
			}
			if v.Later == "" {
				break
			}
			v = read(v.Later)
		}
		slices.Reverse(back)
		require.Equal(t, back, forth)
		require.Len(t, back, 2500)
	}
}

// Of a running flow another task may be selected a moment later: a search, or an earlier
// part, is of the log that was shown.
func TestLogLinksNameTheTask(t *testing.T) {
	t.Parallel()
	page := get(newSite(t, Config{}, longLog(1000, 20)), "/flows/plain").Body.String()
	task := regexp.MustCompile(`<h2 id="task-name">(\d+) `).FindStringSubmatch(page)
	require.NotNil(t, task)
	page = get(newSite(t, Config{}, longLog(1000, 20)), "/flows/plain?panel=log").Body.String()
	require.Contains(t, page, `<input type="hidden" name="task" value="`+task[1]+`">`)
	require.Regexp(t, `href="\?before=801&amp;panel=log&amp;task=`+task[1]+`"`, page)
}

// A page has a bounded part of a log, however long its lines are.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	line := func(size int) flow.LogLine { return flow.LogLine{Text: strings.Repeat("x", size)} }
	lines := []flow.LogLine{line(1), line(logBytes), line(2), line(3)}
	kept, cut := bounded(lines, false)
	require.Equal(t, lines[2:], kept)
	require.True(t, cut)
	kept, cut = bounded(lines, true)
	require.Equal(t, lines[:1], kept)
	require.True(t, cut)
	kept, cut = bounded(lines[1:2], true)
	require.Equal(t, lines[1:2], kept, "one line is always there")
	require.False(t, cut)
}

func TestDownloadLog(t *testing.T) {
	t.Parallel()
	store := longLog(25_000, 0)
	s := newSite(t, Config{}, store)
	w := get(s, "/flows/plain/tasks/3/log.txt?attempt=2")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(t, `attachment; filename="task-3-attempt-2.log"`, w.Header().Get("Content-Disposition"))
	require.Equal(t, 25_000, strings.Count(w.Body.String(), "\n"))
	require.True(t, strings.HasSuffix(w.Body.String(), "2026-11-23T03:12:01Z stdout line 25000 \n"))

	// Half a log must not look like a whole one.
	whole, calls := store.log, 0
	store.log = func(f flow.LogFilter) (flow.LogPage, error) {
		if calls++; calls == 2 {
			return flow.LogPage{}, errors.New("gone")
		}
		return whole(f)
	}
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { get(s, "/flows/plain/tasks/3/log.txt") })
	store.log = func(flow.LogFilter) (flow.LogPage, error) { return flow.LogPage{}, flow.ErrNoTask }
	require.Equal(t, http.StatusNotFound, get(s, "/flows/plain/tasks/99/log.txt").Code)
}
