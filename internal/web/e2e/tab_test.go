package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// patience is how long a tab waits for what a page does: a loaded machine is slow.
const patience = commandtest.Soon

// tab is a page that is open in a profile of its own.
type tab struct {
	*testing.T
	ctx  context.Context
	site string // where register is: "http://127.0.0.1:1234"

	mu       sync.Mutex
	problems []string // guarded by mu: what no page may do
	expected []string // guarded by mu: parts of problems that the test provokes
}

// open opens a tab, 1280 by 800, at a path of the site. What the test sees at its end is
// kept as a picture.
func (w *world) open(path string) *tab {
	w.Helper()
	b := w.blank()
	b.goTo(path)
	return b
}

// in lets a part of a test use the same tab.
func (b *tab) in(t *testing.T) *tab { return &tab{T: t, ctx: b.ctx, site: b.site} }

// blank opens a tab with nothing in it yet, for what must be set before.
func (w *world) blank() *tab {
	w.Helper()
	ctx, cancel := chromedp.NewContext(startBrowser(w.T), chromedp.WithNewBrowserContext())
	b := &tab{T: w.T, ctx: ctx, site: w.site()}
	w.Cleanup(func() {
		b.picture(w.nextPicture())
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		require.Empty(w.T, b.problems, "what no page may do")
	})
	require.NoError(b, chromedp.Listen(ctx, b.heard))
	b.do(chromedp.EmulateViewport(1280, 800))
	call(b, log.Enable, cdp.Empty{})
	call(b, network.Enable, network.EnableParams{})
	// A report of the policy is a line of the console, too.
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `addEventListener("securitypolicyviolation", e =>
			console.error("policy: " + e.violatedDirective + " " + e.blockedURI + " " + e.sample))`,
	})
	return b
}

// heard takes note of what the browser says.
func (b *tab) heard(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var text []string
			for _, arg := range e.Args {
				text = append(text, string(arg.Value)+arg.Description)
			}
			b.problem("console: %s", strings.Join(text, " "))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
		b.problem("exception: %s", text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.problem("browser: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *page.EventJavascriptDialogOpening:
		b.problem("dialog: %s", e.Message)
	case *network.EventRequestWillBeSent:
		b.asked(e)
	}
}

// asked notes a request to another host. Callers hold mu.
func (b *tab) asked(e *network.EventRequestWillBeSent) {
	u := e.Request.URL
	for _, local := range []string{b.site + "/", "data:", "blob:", "about:"} {
		if strings.HasPrefix(u, local) {
			return
		}
	}
	b.problem("a request to another host: %s", u)
}

// problem is something that no page may do, unless the test expects it. Callers hold mu.
func (b *tab) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.ContainsFunc(b.expected, func(part string) bool { return strings.Contains(text, part) }) {
		b.problems = append(b.problems, text)
	}
}

// expect lets a problem pass whose text has a part, such as the browser's own line about
// an answer with status 409.
func (b *tab) expect(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, part)
}

// do runs steps, each within the patience of a test.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b, chromedp.Do(ctx, steps...))
}

// call sends a command of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	require.NoError(b, err, command.Method)
	return result
}

// eval returns what an expression of JavaScript comes to; a promise is waited for.
func eval[T any](b *tab, script string) T {
	b.Helper()
	value, err := tryEval[T](b, script)
	require.NoError(b, err, script)
	return value
}

func tryEval[T any](b *tab, script string) (T, error) { return evalWithin[T](b, patience, script) }

func evalWithin[T any](b *tab, limit time.Duration, script string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](script, func(p *runtime.EvaluateParams) { p.AwaitPromise = new(true) }))
}

// await waits until an expression is true, on this page or on the one that it goes to.
func (b *tab) await(what, script string) {
	b.Helper()
	var last error
	defer func() {
		b.Helper()
		if last != nil {
			b.Logf("%s: %v", script, last)
		}
	}()
	pgtest.Eventually(b.T, patience, what, func() bool {
		var yes bool
		yes, last = tryEval[bool](b, script) // fails while the page changes
		return last == nil && yes
	})
}

// goTo loads a path of the site, and waits until that is there. What the browser tells of
// when something is loaded may be the page before, which a form was still on its way to.
func (b *tab) goTo(path string) {
	b.Helper()
	to := call(b, page.Navigate, page.NavigateParams{URL: b.site + path})
	require.Empty(b, to.ErrorText, path)
	if to.LoaderID == "" {
		return // it was a fragment of the same page
	}
	pgtest.Eventually(b.T, patience, path+" is loaded", func() bool {
		here := call(b, page.GetFrameTree, cdp.Empty{}).FrameTree.Frame.LoaderID
		ready, err := tryEval[bool](b, `document.readyState === "complete"`)
		return here == to.LoaderID && err == nil && ready
	})
}

// path returns the path of the page with its query and fragment.
func (b *tab) path() string {
	b.Helper()
	return eval[string](b, `location.pathname + location.search + location.hash`)
}

// click clicks on the middle of an element, which must be visible.
func (b *tab) click(css string) {
	b.Helper()
	b.do(chromedp.Click(chromedp.CSS(css)))
}

// middle is the middle of an element in the window, x and y, to click there whatever is there by then.
func (b *tab) middle(css string) []float64 {
	b.Helper()
	return eval[[]float64](b, `(() => { const r = document.querySelector(`+quote(css)+`).getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()`)
}

// press presses keys one after another: "gn", or one by its name in kb.
func (b *tab) press(keys string, modifiers ...chromedp.Modifier) {
	b.Helper()
	b.do(chromedp.KeyEvent(keys, chromedp.KeyModifiers(modifiers...)))
}

// text returns the text of an element as it is shown.
func (b *tab) text(css string) string {
	b.Helper()
	return eval[string](b, `document.querySelector(`+quote(css)+`).innerText`)
}

// texts returns those of all elements.
func (b *tab) texts(css string) []string {
	b.Helper()
	return eval[[]string](b, `[...document.querySelectorAll(`+quote(css)+`)].map(e => (e.innerText ?? e.textContent).trim())`)
}

func (b *tab) count(css string) int {
	b.Helper()
	return eval[int](b, `document.querySelectorAll(`+quote(css)+`).length`)
}

// quote writes a text as JavaScript does.
func quote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// size sets the size of the window.
func (b *tab) size(width, height int64) {
	b.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// prefer sets what the system prefers: "color-scheme=dark", "reduced-motion=reduce", or
// "forced-colors=active". What is not said is the default.
func (b *tab) prefer(features ...string) {
	b.Helper()
	var all []*emulation.MediaFeature
	for _, f := range features {
		name, value, said := strings.Cut(f, "=")
		if !said {
			continue
		}
		name = "prefers-" + name
		if strings.HasSuffix(name, "forced-colors") {
			name = "forced-colors"
		}
		all = append(all, &emulation.MediaFeature{Name: name, Value: value})
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: all})
}

// sight shows the page as people see it who see colours otherwise.
func (b *tab) sight(kind string) {
	b.Helper()
	call(b, emulation.SetEmulatedVisionDeficiency, emulation.SetEmulatedVisionDeficiencyParams{Type: emulation.SetEmulatedVisionDeficiencyType(kind)})
}

// withoutScripts disables JavaScript for what is loaded from now on.
func (b *tab) withoutScripts() {
	b.Helper()
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

// noticed reports whether there is a problem with a part in its text.
func (b *tab) noticed(part string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.problems, func(p string) bool { return strings.Contains(p, part) })
}
