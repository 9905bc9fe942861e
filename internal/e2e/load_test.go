package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// load registers flows of a diamond, whose every task has an effect that can be counted,
// one after the other until it is told to stop. Each flow has an Idempotency-Key, and is
// asked for until it is there, as a client should that gets a 503 or no answer.
type load struct {
	w    *world
	s    *server
	p    *peer
	stop context.CancelFunc
	done chan struct{}

	usual time.Duration // until flows progress, on this machine and beside what else it does

	mu      sync.Mutex
	flows   []string // those that were answered with 201; guarded by mu
	refused int      // other answers; guarded by mu
}

// every is the pause between two registrations.
const every = 20 * time.Millisecond

func (w *world) load(s *server) *load {
	w.Helper()
	l := &load{w: w, s: s, p: newPeer(w.T, func(http.ResponseWriter, *http.Request) {})}
	w.define("load", l.p.calling("/1"), l.p.after("/2", 1), l.p.after("/3", 1), l.p.after("/4", 2, 3))
	ctx, stop := context.WithCancel(context.Background())
	whole, giveUp := context.WithCancel(context.Background())
	l.stop, l.done = stop, make(chan struct{})
	go func() {
		defer close(l.done)
		l.run(ctx, whole)
	}()
	w.Cleanup(func() { // a test that has failed waits for nothing
		stop()
		giveUp()
		<-l.done
	})
	return l
}

// after makes a task that calls a path of a peer when others have finished.
func (p *peer) after(path string, depends ...int32) task {
	t := p.calling(path)
	t.depends = depends
	return t
}

// run registers until ctx ends, and then the last one, until whole ends.
func (l *load) run(ctx, whole context.Context) {
	client := &http.Client{Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		for l.register(whole, client, n) != nil && whole.Err() == nil {
			l.mu.Lock()
			l.refused++
			l.mu.Unlock()
			time.Sleep(every)
		}
		time.Sleep(every)
	}
}

// register makes the nth flow; its number is the body of all its effects.
func (l *load) register(ctx context.Context, client *http.Client, n int) error {
	body := fmt.Sprintf(`{"taskId": "load", "parameters": {"BODY": "%d"}}`, n)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.s.url+"/register", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Idempotency-Key", fmt.Sprintf("load %d", n))
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s: %w", answer.Status, text, err)
	}
	var got struct{ TaskFlowID string }
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows = append(l.flows, got.TaskFlowID)
	return nil
}

// registered returns how many flows were answered with 201, and how many times there was
// another answer.
func (l *load) registered() (flows, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.flows), l.refused
}

// progresses waits until flows are registered and finished that did not exist before.
func (l *load) progresses(within time.Duration) {
	l.w.Helper()
	begun := time.Now()
	before, _ := l.registered()
	var last string
	pgtest.Eventually(l.w.T, within, "new flows are registered and finished", func() bool {
		l.mu.Lock()
		if len(l.flows) > before+1 { // the next one may have been begun long ago
			last = l.flows[before+1]
		}
		l.mu.Unlock()
		return last != "" && l.w.statuses(last) == "3 3 3 3"
	})
	l.usual = cmp.Or(l.usual, time.Since(begun))
}

// resumes waits until flows progress again, now that nothing is in the way any more: as
// soon as promised.
func (l *load) resumes() {
	l.w.Helper()
	begun := time.Now()
	l.progresses(promisedHere(l.usual))
	l.w.Logf("work went on after %s", time.Since(begun).Round(time.Millisecond))
}

// promised is how soon work goes on when the database can be reached and written again.
const promised = 5 * time.Second

// promisedHere adds what a busy machine takes, where something took so long before: work
// that goes on only when a watcher polls comes later than that.
func promisedHere(usual time.Duration) time.Duration { return promised + min(10*usual, 20*time.Second) }

// verify ends the load and holds what came of it to the promise: each flow that was
// acknowledged is there, and no other, all have finished, and each effect was had once.
func (l *load) verify() {
	l.w.Helper()
	l.stop()
	select {
	case <-l.done:
	case <-time.After(soon):
		require.FailNow(l.w, "the last registration is not answered")
	}
	for _, f := range l.flows {
		l.w.await(f, "3 3 3 3")
	}
	var n int
	require.NoError(l.w, l.w.Get(&n, `SELECT count(*) FROM kr_task_stat WHERE task_id = 'load' AND exec_status <> 3`))
	require.Zero(l.w, n)
	// An attempt that was superseded had not begun: its claim's answer was lost, and when it
	// was found its watcher had no worker for it.
	var begun []string
	require.NoError(l.w, l.w.Select(&begun, `SELECT a.error FROM kr_task_attempt a JOIN kr_flow f USING (task_flow_id)
		WHERE f.task_id = 'load' AND a.error IS DISTINCT FROM 'its watcher had no worker for it'`))
	require.Empty(l.w, begun)
	require.NoError(l.w, l.w.Get(&n, `SELECT count(*) FROM kr_flow WHERE task_id = 'load'`))
	require.Len(l.w, l.flows, n)
	effects := map[string]int{}
	for _, c := range l.p.seen() {
		effects[c.path+" "+c.body]++
	}
	for i := range l.flows {
		for path := 1; path <= 4; path++ {
			effect := fmt.Sprintf("/%d %d", path, i)
			require.Equal(l.w, 1, effects[effect], effect)
		}
	}
	require.Len(l.w, effects, 4*len(l.flows))
	l.w.sound()
	_, refused := l.registered()
	l.w.Logf("%d flows; %d requests were refused", len(l.flows), refused)
}
