package e2e

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Pictures names the folder that TestPictures fills: make pictures.
const picturesEnv = "FLOWER_PICTURES"

// TestPictures takes the pictures of the README, of what make demo shows.
func TestPictures(t *testing.T) {
	dir := os.Getenv(picturesEnv)
	if dir == "" {
		t.Skip(picturesEnv + " is where they go")
	}
	w := newWorld(t)
	w.demo("http://flower:8000")
	w.watcher("-workers", "4")
	w.watcher("-workers", "4")
	for _, id := range []string{"reports", "nightly", "imports", "imports", "reports"} {
		w.demoFlow(id)
	}
	pgtest.Eventually(t, patience, "something runs, and something waits", func() bool {
		return w.value(`SELECT count(*) > 5 FROM kr_task_stat WHERE exec_status = 1`) == "true"
	})
	failed := items(w, "/flows?taskId=nightly&status=failed&limit=1", func(f flowOf) string { return f.TaskFlowID })[0]
	b := w.blank()
	b.do(chromedp.EmulateViewport(1280, 800, chromedp.EmulateScale(1.5)))
	take := func(name, theme, path string, do func()) {
		t.Helper()
		b.prefer("color-scheme="+theme, "reduced-motion=reduce")
		b.goTo(path)
		do()
		shot, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		require.NoError(t, err)
		small := crushed(t, shot)
		require.Less(t, len(small), 150<<10, name)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), small, 0o644))
	}
	take("flow", "light", flowPath(failed), b.drawn)
	take("rerun", "light", flowPath(failed), func() {
		b.drawn()
		b.dialog(".failure", "Rerun from here")
		b.await("what it changes is ringed", `document.querySelectorAll(".n.ringed").length > 0`)
	})
	take("now", "dark", "/", func() { b.await("what runs", `document.querySelectorAll(".tasks-now tr").length > 4`) })
	take("failures", "light", "/failures", func() {})
	take("workflow", "light", "/workflows/nightly?flows=25", b.drawn)
}

// demoFlow registers a flow as cron would.
func (w *world) demoFlow(workflow string) {
	w.Helper()
	resp, err := http.Post(w.url+"/register/"+workflow, "application/json", strings.NewReader(`{"registeredBy": "cron"}`))
	require.NoError(w, err)
	require.NoError(w, resp.Body.Close())
	require.Equal(w, http.StatusCreated, resp.StatusCode)
}

// crushed is a picture with the 256 colours that it has most use for: a page has few.
func crushed(t *testing.T, shot []byte) []byte {
	t.Helper()
	whole, err := png.Decode(bytes.NewReader(shot))
	require.NoError(t, err)
	at := whole.Bounds()
	seen := map[color.RGBA]int{}
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			seen[color.RGBAModel.Convert(whole.At(x, y)).(color.RGBA)]++
		}
	}
	few := image.NewPaletted(at, cut(seen, 256))
	index := map[color.RGBA]uint8{}
	for c := range seen {
		index[c] = uint8(few.Palette.Index(c))
	}
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			few.SetColorIndex(x, y, index[color.RGBAModel.Convert(whole.At(x, y)).(color.RGBA)])
		}
	}
	var b bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, few))
	return b.Bytes()
}

// cut chooses n colours by halving the widest group until there are so many (median cut);
// of each group it takes the one that is seen most.
func cut(seen map[color.RGBA]int, n int) color.Palette {
	all := make([]color.RGBA, 0, len(seen))
	for c := range seen {
		all = append(all, c)
	}
	channel := func(c color.RGBA, i int) int { return int([]uint8{c.R, c.G, c.B}[i]) }
	// span is the channel in which a group is widest, and how wide it is.
	span := func(group []color.RGBA) (widest, wide int) {
		for i := range 3 {
			by := func(a, b color.RGBA) int { return channel(a, i) - channel(b, i) }
			if w := channel(slices.MaxFunc(group, by), i) - channel(slices.MinFunc(group, by), i); w > wide {
				widest, wide = i, w
			}
		}
		return widest, wide
	}
	groups := [][]color.RGBA{all}
	for len(groups) < min(n, len(all)) {
		at, by, most := 0, 0, -1
		for g, group := range groups {
			if i, wide := span(group); wide > most {
				at, by, most = g, i, wide
			}
		}
		group := groups[at]
		slices.SortFunc(group, func(a, b color.RGBA) int { return channel(a, by) - channel(b, by) })
		groups[at] = group[:len(group)/2]
		groups = append(groups, group[len(group)/2:])
	}
	var palette color.Palette
	for _, group := range groups {
		palette = append(palette, slices.MaxFunc(group, func(a, b color.RGBA) int { return seen[a] - seen[b] }))
	}
	return palette
}
