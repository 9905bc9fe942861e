package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// evil is a page of another site that does what it can to act at a register: forms without
// a script's help, among them one whose text is JSON, and requests that need no leave.
const evil = `<!doctype html><html lang="en"><title>evil</title><script>
let done = 0
const site = %q, flow = %q
function form(path, enctype, fields) {
	const frame = document.createElement("iframe"), f = document.createElement("form")
	frame.name = "f" + document.forms.length
	document.body.append(frame, f)
	Object.assign(f, {method: "post", action: site + path, enctype, target: frame.name})
	for (const [name, value] of Object.entries(fields)) {
		const i = document.createElement("input")
		Object.assign(i, {type: "hidden", name, value})
		f.append(i)
	}
	frame.onload = () => done++
	f.submit()
}
addEventListener("load", () => {
	form("/register", "text/plain", {'{"taskId": "sample", "x": "': '"}'})
	form("/register/sample", "application/x-www-form-urlencoded", {})
	form("/workflows/sample/register", "application/x-www-form-urlencoded", {parameters: "{}"})
	form("/flows/" + flow + "/cancel", "application/x-www-form-urlencoded", {expect: "3"})
	form("/flows/" + flow + "/hold", "multipart/form-data", {})
	form("/api/v1/flows/" + flow + "/cancel", "text/plain", {'{"x": "': '"}'})
	form("/api/v1/bulk/cancel", "text/plain", {'{"filter": {"taskId": "sample"}, "expect": 3, "x": "': '"}'})
	const ask = (path, init) => fetch(site + path, {mode: "no-cors", credentials: "include", ...init}).then(() => done++, () => done++)
	ask("/register/sample", {method: "POST"})
	ask("/register", {method: "POST", body: '{"taskId": "sample"}'})
	ask("/flows/" + flow + "/cancel", {method: "POST", body: new URLSearchParams({expect: 3})})
	fetch(site + "/api/v1/flows/" + flow, {credentials: "include"}).then(r => r.text()).then(t => { document.title = "read: " + t }, () => done++)
	fetch(site + "/register", {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"taskId": "sample"}'}).then(() => done++, () => done++)
	navigator.sendBeacon(site + "/register/sample", "x")
})
</script><body></body></html>`

const evilAttempts = 12 // beside the beacon, of which nobody hears

// A page of another site gets nothing done, and reads nothing, in the browser of somebody
// who may: who is at localhost, or has signed in. Neither does one of the same machine, to
// which cookies are sent: for them ports do not count.
func TestSecB1_AnotherSiteGetsNothingDone(t *testing.T) {
	for _, name := range []string{"127.0.0.1", host} {
		for _, signedIn := range []bool{false, true} {
			t.Run(fmt.Sprintf("from %s, signed in %v", name, signedIn), func(t *testing.T) { elsewhere(t, name, signedIn) })
		}
	}
}

func elsewhere(t *testing.T, name string, signedIn bool) {
	var args []string
	var token string
	if signedIn {
		file := filepath.Join(t.TempDir(), "tokens")
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "register"), "token", "-name", "alice", "-role", "admin", "-file", file).Output()
		require.NoError(t, err)
		token, args = strings.TrimSpace(string(out)), []string{"-tokens-file", file}
	}
	w := newWorld(t, args...)
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq)
		VALUES ('f', 1, 0, 'sample', 1), ('f', 2, 1, 'sample', 2), ('f', 3, 2, 'sample', 3)`)
	b := w.blank()
	if signedIn {
		b.goTo("/login")
		b.do(chromedp.SendKeys(chromedp.CSS(`input[name="token"]`), token))
		b.click(`main form button`)
		b.await("alice is in", `location.pathname === "/"`)
	}
	before := w.everything()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	page := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(rw, evil, w.url, "f")
	})}}
	page.Start()
	t.Cleanup(page.Close)
	at, _ := l.Addr().(*net.TCPAddr)
	b.do(chromedp.Navigate(fmt.Sprintf("http://%s:%d/", name, at.Port)))
	b.await("it has tried everything", fmt.Sprintf(`done >= %d`, evilAttempts))
	require.Equal(t, "evil", eval[string](b, `document.title`), "it has read nothing")
	require.Equal(t, before, w.everything())
	b.mu.Lock()
	b.problems = nil // there are many
	b.mu.Unlock()
}
