package program

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/require"
)

// fakeEngine speaks as much of the Docker Engine API, version 1.41, as Container needs, on
// a unix socket. What it answers was compared with Docker 20.10. An image is a function.
type fakeEngine struct {
	t      *testing.T
	socket string

	mu         sync.Mutex
	server     *http.Server
	images     map[string]work // at the engine
	registry   map[string]work // where images are pulled from
	containers []*fakeContainer
	starts     []string                                                 // names, in order
	together   int                                                      // the most containers that ever ran at once
	pulls      []string                                                 // references
	before     func(w http.ResponseWriter, r *http.Request) (done bool) // every call, but pings
}

// work is what a container does; it returns the exit code.
type work func(c *fakeContainer) int

// fakeContainer is one container. Its fields are guarded by the engine's mu.
type fakeContainer struct {
	engine *fakeEngine
	id     string
	name   string
	spec   container.CreateRequest
	state  container.State
	log    []logEntry
	change chan struct{} // closed, and made anew, at each change
	term   chan struct{} // closed by SIGTERM
	killed chan struct{} // closed by SIGKILL
}

type logEntry struct {
	stream stdcopy.StdType
	at     time.Time
	text   string
}

func newEngine(t *testing.T, image work) *fakeEngine {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine") // t.TempDir can be too long for a socket
	require.NoError(t, err)
	e := &fakeEngine{
		t: t, socket: filepath.Join(dir, "s"),
		images: map[string]work{"app:1": image}, registry: map[string]work{},
	}
	e.up()
	t.Cleanup(func() {
		e.down()
		e.mu.Lock()
		for _, c := range e.containers {
			e.exit(c, 137)
		}
		e.mu.Unlock()
		_ = os.RemoveAll(dir)
	})
	return e
}

func (e *fakeEngine) host() string { return "unix://" + e.socket }

// up starts the engine, with the containers that it had.
func (e *fakeEngine) up() {
	listener, err := net.Listen("unix", e.socket)
	require.NoError(e.t, err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server = &http.Server{Handler: e, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	server := e.server
	go func() { _ = server.Serve(listener) }()
}

// down ends the engine and all connections. Containers go on, as with "live restore".
func (e *fakeEngine) down() {
	e.mu.Lock()
	server := e.server
	e.mu.Unlock()
	_ = server.Close()
}

// killAll is what an engine does that ends without "live restore".
func (e *fakeEngine) killAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		e.exit(c, 137)
	}
}

// intercept has a function look at each call first.
func (e *fakeEngine) intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.before = f
}

// names returns the names of all containers that are there.
func (e *fakeEngine) names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := make([]string, len(e.containers))
	for i, c := range e.containers {
		names[i] = c.name
	}
	return names
}

func (e *fakeEngine) started() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.starts)
}

// put makes a container without a call, as another watcher has.
func (e *fakeEngine) put(name string, labels map[string]string, image work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.add(name, container.CreateRequest{Config: &container.Config{Image: "app:1", Labels: labels}, HostConfig: &container.HostConfig{}})
	e.run(c, image)
}

func (e *fakeEngine) add(name string, spec container.CreateRequest) *fakeContainer {
	c := &fakeContainer{
		engine: e, id: fmt.Sprintf("%064x", len(e.containers)+1000*len(e.starts)+1), name: name, spec: spec,
		change: make(chan struct{}), term: make(chan struct{}), killed: make(chan struct{}),
	}
	c.state.Status = container.StateCreated
	e.containers = append(e.containers, c)
	return c
}

func (e *fakeEngine) run(c *fakeContainer, image work) {
	c.state.Status, c.state.Running = container.StateRunning, true
	e.starts = append(e.starts, c.name)
	n := 0
	for _, other := range e.containers {
		if other.state.Running {
			n++
		}
	}
	e.together = max(e.together, n)
	go func() {
		code := image(c)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.exit(c, code)
	}()
}

// exit ends a container that runs. The caller holds mu.
func (e *fakeEngine) exit(c *fakeContainer, code int) {
	if !c.state.Running {
		return
	}
	c.state.Status, c.state.Running, c.state.ExitCode = container.StateExited, false, code
	if code == 137 {
		close(c.killed)
	}
	c.changed()
}

func (c *fakeContainer) changed() {
	close(c.change)
	c.change = make(chan struct{})
}

// print writes to stdout, a line at a time.
func (c *fakeContainer) print(text string) { c.printTo(stdcopy.Stdout, text) }

func (c *fakeContainer) printTo(stream stdcopy.StdType, text string) {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if !c.state.Running {
		return
	}
	for line := range strings.Lines(text) {
		// A coarse clock: many lines have the same time.
		c.log = append(c.log, logEntry{stream, time.Now().Truncate(time.Millisecond), line})
	}
	c.changed()
}

// wait returns false if the container is to end.
func (c *fakeContainer) wait(on <-chan struct{}) bool {
	select {
	case <-on:
		return true
	case <-c.term:
	case <-c.killed:
	}
	return false
}

func (c *fakeContainer) env(name string) string {
	for _, v := range c.spec.Env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	if r.URL.Path == "/_ping" {
		return
	}
	e.mu.Lock()
	before := e.before
	e.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1.41"), "/")
	switch {
	case path == "images/create":
		e.pull(w, r)
	case path == "containers/create":
		e.create(w, r)
	case path == "containers/json":
		e.list(w, r)
	default:
		parts := strings.Split(path, "/")
		if len(parts) < 2 || parts[0] != "containers" {
			answer(w, http.StatusNotFound, "page not found")
			return
		}
		e.one(w, r, parts[1], strings.Join(parts[2:], "/"))
	}
}

func answer(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (e *fakeEngine) find(ref string) *fakeContainer {
	i := slices.IndexFunc(e.containers, func(c *fakeContainer) bool { return c.name == ref || c.id == ref })
	if i < 0 {
		return nil
	}
	return e.containers[i]
}

func (e *fakeEngine) pull(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ref := strings.TrimPrefix(r.URL.Query().Get("fromImage"), "docker.io/library/") + ":" + r.URL.Query().Get("tag")
	e.pulls = append(e.pulls, ref)
	image, known := e.registry[ref]
	if !known {
		answer(w, http.StatusNotFound, "pull access denied for "+ref+", repository does not exist or may require 'docker login'")
		return
	}
	e.images[ref] = image
	_, _ = io.WriteString(w, `{"status":"Pulling from library/app"}`+"\n"+`{"status":"Download complete"}`+"\n")
}

func (e *fakeEngine) create(w http.ResponseWriter, r *http.Request) {
	var spec container.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&spec); err != nil {
		answer(w, http.StatusBadRequest, err.Error())
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	name := r.URL.Query().Get("name")
	if !strings.Contains(spec.Image, ":") {
		spec.Image += ":latest"
	}
	if e.images[spec.Image] == nil {
		answer(w, http.StatusNotFound, "No such image: "+spec.Image)
		return
	}
	for _, m := range spec.HostConfig.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			answer(w, http.StatusBadRequest, `invalid mount config for type "bind": bind source path does not exist: `+m.Source)
			return
		}
	}
	if e.find(name) != nil {
		answer(w, http.StatusConflict, `Conflict. The container name "/`+name+`" is already in use`)
		return
	}
	c := e.add(name, spec)
	answerJSON(w, http.StatusCreated, container.CreateResponse{ID: c.id, Warnings: []string{}})
}

func (e *fakeEngine) list(w http.ResponseWriter, r *http.Request) {
	var filters map[string]map[string]bool
	if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters); err != nil || r.URL.Query().Get("all") != "1" {
		answer(w, http.StatusBadRequest, "the test wants filters, and all")
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []container.Summary{}
	for _, c := range e.containers {
		matches := true
		for label := range maps.Keys(filters["label"]) {
			name, value, _ := strings.Cut(label, "=")
			got, has := c.spec.Labels[name]
			matches = matches && has && got == value
		}
		if matches {
			list = append(list, container.Summary{ID: c.id, Names: []string{"/" + c.name}, Labels: c.spec.Labels, State: c.state.Status})
		}
	}
	answerJSON(w, http.StatusOK, list)
}

// one is a call about one container.
func (e *fakeEngine) one(w http.ResponseWriter, r *http.Request, ref, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.find(ref)
	if c == nil {
		answer(w, http.StatusNotFound, "No such container: "+ref)
		return
	}
	switch r.Method + " " + what {
	case "GET json":
		answerJSON(w, http.StatusOK, container.InspectResponse{ID: c.id, Name: "/" + c.name, State: new(c.state)})
	case "POST start":
		e.start(w, c)
	case "POST stop":
		e.stop(w, r, c)
	case "POST rename":
		name := r.URL.Query().Get("name")
		if e.find(name) != nil {
			answer(w, http.StatusConflict, "Error when allocating new name: Conflict. The container name is already in use")
			return
		}
		c.name = name
		w.WriteHeader(http.StatusNoContent)
	case "POST wait":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for c.state.Running && e.sleep(r.Context(), c) {
		}
		if !c.state.Running {
			_ = json.NewEncoder(w).Encode(container.WaitResponse{StatusCode: int64(c.state.ExitCode)})
		}
	case "GET logs":
		e.logs(w, r, c)
	case "DELETE ":
		if c.state.Running && r.URL.Query().Get("force") != "1" {
			answer(w, http.StatusConflict, "You cannot remove a running container")
			return
		}
		e.exit(c, 137)
		e.containers = slices.DeleteFunc(e.containers, func(other *fakeContainer) bool { return other == c })
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, http.StatusNotFound, "page not found")
	}
}

// sleep waits for a change of a container, without mu, and returns false if the client has
// gone.
func (e *fakeEngine) sleep(ctx context.Context, c *fakeContainer) bool {
	change := c.change
	e.mu.Unlock()
	defer e.mu.Lock()
	select {
	case <-change:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *fakeEngine) start(w http.ResponseWriter, c *fakeContainer) {
	if c.state.Running {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if network := c.spec.HostConfig.NetworkMode; network != "none" && network != "bridge" {
		answer(w, http.StatusNotFound, "network "+string(network)+" not found")
		return
	}
	if len(c.spec.Cmd) > 0 && c.spec.Cmd[0] == "nosuch" {
		c.state.ExitCode = 127
		answer(w, http.StatusBadRequest, `OCI runtime create failed: exec: "nosuch": executable file not found in $PATH: unknown`)
		return
	}
	e.run(c, e.images[c.spec.Image])
	w.WriteHeader(http.StatusNoContent)
}

func (e *fakeEngine) stop(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	if !c.state.Running {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	select {
	case <-c.term:
	default:
		close(c.term)
	}
	seconds, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("t"), "10"))
	require.NoError(e.t, err)
	// What a client does meanwhile, or that it goes, changes nothing.
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer cancel()
	for c.state.Running && e.sleep(ctx, c) {
	}
	e.exit(c, 137)
	w.WriteHeader(http.StatusNoContent)
}

func (e *fakeEngine) logs(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	query := r.URL.Query()
	var since time.Time
	if text := query.Get("since"); text != "" {
		seconds, nanos, _ := strings.Cut(text, ".")
		s, err := strconv.ParseInt(seconds, 10, 64)
		require.NoError(e.t, err)
		n, err := strconv.ParseInt(cmp.Or(nanos, "0"), 10, 64)
		require.NoError(e.t, err)
		since = time.Unix(s, n)
	}
	w.WriteHeader(http.StatusOK)
	for next := 0; ; {
		entries := c.log[next:]
		next = len(c.log)
		over := query.Get("follow") != "1" || !c.state.Running
		e.mu.Unlock()
		for _, entry := range entries {
			if entry.at.Before(since) {
				continue
			}
			text := entry.text
			if query.Get("timestamps") == "1" {
				text = entry.at.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + text
			}
			header := []byte{byte(entry.stream), 0, 0, 0, byte(len(text) >> 24), byte(len(text) >> 16), byte(len(text) >> 8), byte(len(text))}
			if _, err := w.Write(append(header, text...)); err != nil {
				e.mu.Lock()
				return
			}
		}
		w.(http.Flusher).Flush()
		e.mu.Lock()
		if next < len(c.log) {
			continue
		}
		if over || !e.sleep(r.Context(), c) {
			return
		}
	}
}
