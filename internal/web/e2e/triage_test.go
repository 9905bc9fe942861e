package e2e

import "testing"

// 1. A failed flow, opened: which task, why, and the button that runs it again are there,
// without a click or a scroll; and nothing that has not failed says so.
func TestUI_01_FailureAtAGlance(t *testing.T) {
	w := newWorld(t)
	w.watcher()
	b := w.open(flowPath(w.nightly(newPeer(t))))
	b.await("the graph", `document.querySelector(".graph-box")?.dataset.drawn !== undefined`)
	b.portraits("flow-failed")
	b.size(1280, 800)
}
