package e2e

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/stretchr/testify/require"
)

// 32. Local and UTC reach every time that is seen, on axes too, in each zone, on the night
// in which clocks go back as well; no duration is negative.
func TestUI_32_Zones(t *testing.T) {
	w := newWorld(t)
	w.inserted("night", shape{states: "3 3 f", after: [][]int32{{}, {1}, {2}}})
	// In New York the hour from 05:00 to 06:00 UTC and the one after it have the same names.
	w.exec(`UPDATE kr_task_stat SET registered_ts = '2025-11-02 05:10Z', started_ts = '2025-11-02 05:20Z'::timestamptz + task_exec_seq * interval '20 min',
		finished_ts = CASE WHEN exec_status = 3 THEN '2025-11-02 05:38Z'::timestamptz + task_exec_seq * interval '20 min' END,
		suspended_ts = CASE WHEN exec_status = 2 THEN '2025-11-02 06:44Z'::timestamptz END WHERE task_flow_id = 'night'`)
	b := w.open(flowPath("night"))
	b.drawn()
	const times = `[...document.querySelectorAll("main time, main [data-time]")].map(e => e.textContent)`
	// Every time of day on the page is in an element that says which moment it is.
	const loose = `(() => {
		const found = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
		while (walk.nextNode()) if (/\d\d:\d\d/.test(walk.currentNode.data) && !walk.currentNode.parentElement.closest("time, [data-time], pre, .said, title")) found.push(walk.currentNode.data);
		return found;
	})()`
	for zone, want := range map[string]string{"Asia/Tokyo": "15:44:00 GMT+9", "UTC": "06:44:00 UTC", "America/New_York": "01:44:00 EST"} {
		call(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: zone})
		b.goTo(flowPath("night"))
		b.drawn()
		require.Empty(t, eval[[]string](b, loose), zone)
		local := eval[[]string](b, times)
		require.Contains(t, b.text("#task"), want, zone)
		require.Equal(t, 1, eval[int](b, `[...document.querySelectorAll(".axis .zone")].filter(e => `+quote(want)+`.endsWith(e.textContent) || `+quote(zone)+` === "America/New_York").length`))
		b.click("#set-zone")
		b.await("UTC", `document.documentElement.dataset.zone === "utc" && document.querySelector("#task").innerText.includes("06:44:00 UTC")`)
		utc := eval[[]string](b, times)
		require.Len(t, utc, len(local))
		for i := range utc {
			if zone != "UTC" && local[i] != "" {
				require.NotEqual(t, local[i], utc[i], "%s: %d", zone, i)
			}
		}
		require.NotRegexp(t, `[-−]\d+(\.\d+)? (ms|s|m|h)\b`, b.text("main"))
		b.click("#set-zone")
		b.await("local", `document.documentElement.dataset.zone === "local"`)
	}
	// Between 01:40 EDT and 01:44 EST there is an hour and four minutes.
	require.Contains(t, b.text("#timeline"), "24 m 00 s")
}

// What a page that stays open has written without a date, since it was today, gets one at
// midnight, also where nothing else changes.
func TestUI_32_Midnight(t *testing.T) {
	w := newWorld(t)
	w.inserted("today", shapes[0])
	b := w.open(flowPath("today"))
	b.click("#set-live")
	b.await("the time alone", `/^[0-9:]+ UTC$/.test(document.querySelector(".about time").textContent)`)
	eval[struct{}](b, `(() => { const now = Date.now; Date.now = () => now() + 24 * 3600e3; })(); undefined`)
	b.await("with the date", `/^[0-9]+-[0-9]+-[0-9]+ [0-9:]+ UTC$/.test(document.querySelector(".about time").textContent)`)
}
