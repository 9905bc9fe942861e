package web

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func FuzzCursor(f *testing.F) {
	f.Add("", "f")
	f.Add("a2s", "a/b %\x01日本")
	f.Fuzz(func(t *testing.T, text, id string) {
		readCursor(text) // whatever it is
		if clean(url.Values{"": {id}}) != nil {
			return
		}
		p := flow.Position{At: time.UnixMicro(1_764_000_000_123_456).UTC(), Flow: flow.ID(id)}
		require.Equal(t, p, readCursor(cursorOf(p)))
	})
}

func TestCursor(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "!", "YQ", "LTUgZg", cursorOf(flow.Position{})} {
		require.Zero(t, readCursor(text), text)
	}
	require.Zero(t, including(flow.Position{}))
	p := flow.Position{At: at(5), Flow: "f"}
	require.Less(t, p.Flow, including(p).Flow)
}

func FuzzFilter(f *testing.F) {
	f.Add("status=failed,held&since=24h&group=x&taskSeq=3")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		filter, err := filterOf(query{values})
		if err == nil && !isFiltered(query{values}) {
			require.Zero(t, filter)
		}
	})
}

func TestFilter(t *testing.T) {
	t.Parallel()
	read := func(text string) (flow.Filter, error) {
		values, err := url.ParseQuery(text)
		require.NoError(t, err)
		return filterOf(query{values})
	}
	day, hour := flow.Moment{Before: 24 * time.Hour}, time.Hour
	for text, want := range map[string]flow.Filter{
		"": {},
		"status=failed&status=held,running&limit=3": {Status: []string{"failed", "held", "running"}},
		"taskId=nightly&registeredBy=cron&q=+x+":    {WorkflowID: "nightly", RegisteredBy: "cron", Text: "x"},
		"since=24h&until=1d&minDuration=60m":        {Since: day, Until: day, MinDuration: hour},
		"since=2026-11-23&until=2026-11-23T03:12:01Z": {
			Since: flow.Moment{At: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}, Until: flow.Moment{At: time.Date(2026, 11, 23, 3, 12, 1, 0, time.UTC)},
		},
		"program=P&reason=lost&fingerprint=9c1f": {Program: "P", Reason: flow.ReasonLost, Fingerprint: "9c1f"},
		"group=9c1f&taskId=n&taskSeq=3&since=24h": {
			Group: &flow.FailureKey{WorkflowID: "n", TaskSeq: 3, Fingerprint: "9c1f"}, Since: day,
		},
	} {
		got, err := read(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	// A list that shows more than was asked for would be acted upon.
	for _, text := range []string{
		"status=broken", "reason=bad", "since=yesterday", "since=-5h", "until=0d", "until=9999999d", "minDuration=long", "minDuration=-1s",
		"until=0001-01-01T00:00:00Z", "group=9c1f", "group=9c1f&taskSeq=x", "group=9c1f&taskSeq=99999999999", "since=NaNd",
	} {
		_, err := read(text)
		require.Error(t, err, text)
		s := newSite(t, Config{}, &fakeStore{})
		require.Equal(t, http.StatusBadRequest, get(s, "/flows?"+text).Code, text)
		require.Equal(t, http.StatusBadRequest, get(s, "/bulk/rerun?all=1&"+text).Code, text)
	}
}

// manyFlows are flows that a list is read of, the one registered last first: f100 to f1.
func manyFlows(store *fakeStore, n int) {
	store.lists.page = func(f flow.Filter, after flow.Position, limit int) (flow.Page, error) {
		var page flow.Page
		for i := n; i > 0; i-- {
			p := flow.Position{At: at(float64(i / 2)), Flow: flow.ID(fmt.Sprintf("f%03d", i))} // two at a time
			switch {
			case f.Since.At.After(p.At):
			case !after.IsZero() && (p.At.After(after.At) || p.At.Equal(after.At) && p.Flow >= after.Flow):
			case len(page.Flows) == limit:
				page.Next = page.Flows[limit-1].Position
				return page, nil
			default:
				page.Flows = append(page.Flows, flow.Summary{Flow: flow.Flow{ID: p.Flow, WorkflowID: "w", RegisteredAt: p.At}, Status: "finished", Position: p})
			}
		}
		return page, nil
	}
}

var rowID = regexp.MustCompile(`<tr id="f-f(\d+)"`)

func rowsOf(page string) (ids []string) {
	for _, m := range rowID.FindAllStringSubmatch(page, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

// linkOf returns where a link of a page leads; empty: there is none.
func linkOf(page, pattern string) string {
	m := regexp.MustCompile(`href="([^"]*)"[^>]*>` + pattern).FindStringSubmatch(page)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// Older and Newer lead through all pages and back, each flow once, whatever shares a moment.
func TestPaging(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	manyFlows(store, 100)
	s := newSite(t, Config{}, store)
	var seen []string
	var pages [][]string
	path := "/flows?limit=3&status=finished"
	for {
		page := get(s, path).Body.String()
		pages = append(pages, rowsOf(page))
		seen = append(seen, rowsOf(page)...)
		older := linkOf(page, "Older")
		if older == "" {
			break
		}
		require.Contains(t, older, "limit=3&newer=")
		require.Contains(t, older, "status=finished")
		path = "/flows" + older
	}
	require.Len(t, seen, 100)
	require.Equal(t, "100", seen[0])
	require.Equal(t, "001", seen[99])
	require.Len(t, pages, 34)
	require.Less(t, len(path), 1500)
	// Back: as far as the trail goes, and from there to the beginning.
	for i := len(pages) - 2; i > len(pages)-2-maxTrail; i-- {
		path = "/flows" + linkOf(get(s, path).Body.String(), "‹ Newer")
		require.Equal(t, pages[i], rowsOf(get(s, path).Body.String()), i)
	}
	path = "/flows" + linkOf(get(s, path).Body.String(), "‹ Newer")
	require.Equal(t, pages[0], rowsOf(get(s, path).Body.String()))
	require.Empty(t, linkOf(get(s, path).Body.String(), "‹ Newer"))
	require.Empty(t, rowsOf(get(s, "/flows?limit=0").Body.String())[1:])
	require.Len(t, rowsOf(get(s, "/flows?limit=1000").Body.String()), 100)
}

// An open list keeps its rows: what has come since is a number.
func TestNewFlows(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	manyFlows(store, 10)
	s := newSite(t, Config{}, store)
	again := regexp.MustCompile(`hx-get="(\?[^"]*)"`)
	open := get(s, "/flows?status=finished").Body.String()
	path := "/flows" + html.UnescapeString(again.FindStringSubmatch(open)[1])

	require.NotContains(t, get(s, path).Body.String(), "new-flows")
	manyFlows(store, 13)
	page := get(s, path).Body.String()
	require.Equal(t, rowsOf(open), rowsOf(page))
	require.Contains(t, page, "3 new flows")
	require.Equal(t, "?status=finished", linkOf(page, "3 new"))
	require.Equal(t, again.FindString(open), again.FindString(page), "it goes on to ask for the same")
	manyFlows(store, 500)
	require.Contains(t, get(s, path).Body.String(), "100&#43; new flows")
}

// What is ticked on the longest page goes into the address of a preview, which some proxies
// refuse beyond 8 KiB.
func TestFlowsOfAPageFitIntoAnAddress(t *testing.T) {
	t.Parallel()
	ticked := url.Values{"scope": {"failed"}, "back": {"/flows?" + url.Values{"limit": {"1000"}, "status": {"failed"}, "q": {"duplicate key value violates unique constraint"}}.Encode()}}
	for range pageSize(query{url.Values{"limit": {"1000"}}}) {
		ticked.Add("flow", "01a21957-6e50-7e55-8423-cb728b2a669f")
	}
	require.Greater(t, len(ticked["flow"]), 2*flowsShown)
	require.Less(t, len("GET /flower/bulk/cancel?"+ticked.Encode()+" HTTP/1.1"), 8_000)
}

func TestFlows_Empty(t *testing.T) {
	t.Parallel()
	s := newSite(t, Config{BasePath: "/flower"}, &fakeStore{})
	page := get(s, "/flows").Body.String()
	require.Contains(t, page, "No flow yet.")
	require.Contains(t, page, `href="/flower/workflows/sample/register"`)
	page = get(s, "/flows?status=failed").Body.String()
	require.Contains(t, page, "No flow matches.")
	require.Contains(t, page, `href="/flower/flows">Clear the filter`)
	require.NotContains(t, page, "A text is looked for")
	require.Contains(t, get(s, "/flows?q=load_orders").Body.String(), "A text is looked for")
}

// A chip has the count of its word and leads to it; the others of the filter stay.
func TestChips(t *testing.T) {
	t.Parallel()
	store := &fakeStore{}
	store.lists.counts = flow.FlowCounts{ByStatus: map[string]flow.Count{"failed": {N: 14}, "finished": {N: 1000, More: true}}, All: flow.Count{N: 1000, More: true}}
	s := newSite(t, Config{}, store)
	page := get(s, "/flows?taskId=n&status=failed&after=x&newer=y&at=z").Body.String()
	require.Equal(t, "?taskId=n", linkOf(page, `All <span class="n">1,000&#43;<`))
	require.Equal(t, "?status=failed&taskId=n", linkOf(page, `(?:<svg.*?</svg>)Failed <span class="n">14<`))
	require.Contains(t, page, "<title>14 failed · Flows · Flower</title>")
	require.Equal(t, 1, strings.Count(page, `aria-current="true"`))
}
