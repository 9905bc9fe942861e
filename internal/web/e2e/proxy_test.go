package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands before a register, as many will have one, and takes note of what passes.
type proxy struct {
	*httptest.Server
	mu      sync.Mutex
	passed  []passage                      // guarded by mu
	change  func(answer http.Header)       // guarded by mu: what it does to an answer
	stall   func(r *http.Request)          // guarded by mu: returns when a request may pass
	rewrite func(r *httputil.ProxyRequest) // how a path changes on its way
}

type passage struct {
	method, path string
	status       int
}

// newProxy makes a proxy; rewrite is nil where paths stay as they are.
func newProxy(t *testing.T, target string, rewrite func(r *httputil.ProxyRequest)) *proxy {
	t.Helper()
	to, err := url.Parse(target)
	require.NoError(t, err)
	p := &proxy{rewrite: rewrite}
	p.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
			r.Out.Host = r.In.Host // a page may only be changed from where it was served
			if p.rewrite != nil {
				p.rewrite(r)
			}
			p.mu.Lock()
			stall := p.stall
			p.mu.Unlock()
			if stall != nil {
				stall(r.In)
			}
		},
		ModifyResponse: func(a *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.passed = append(p.passed, passage{a.Request.Method, a.Request.URL.RequestURI(), a.StatusCode})
			if p.change != nil {
				p.change(a.Header)
			}
			return nil
		},
	})
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

// changes does something to each answer from now on.
func (p *proxy) changes(f func(http.Header)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = f
}

// stalls holds back the next GET of what has a part in its address, until goOn. begun is
// closed when it is there.
func (p *proxy) stalls(part string) (begun <-chan struct{}, goOn func()) {
	came, free := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stall = func(r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.RequestURI(), part) || held.Swap(true) {
			return
		}
		close(came)
		select {
		case <-free:
		case <-r.Context().Done():
		}
	}
	return came, func() { close(free) }
}

// pages returns what has passed but for static files, and forgets it.
func (p *proxy) pages() []passage {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.DeleteFunc(p.passed, func(a passage) bool { return strings.Contains(a.path, "/static/") })
	p.passed = nil
	return all
}
