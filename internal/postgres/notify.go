package postgres

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
)

// channel is what triggers, registrations, releases and actions notify. A notification is a
// hint that something can be claimed, from which place in the queue on (see front; nothing:
// from anywhere), or was revoked; polling alone would find it, too.
const channel = "flower"

// notifySQL does not wait for the disk: a hint that is lost costs one poll. It is a
// transaction of its own, since a commit with a notification takes a lock of the whole
// server until it is flushed.
const notifySQL = `
-- flower: notify
SELECT pg_notify('` + channel + `', $1)::text FROM set_config('synchronous_commit', 'off', true)`

// notifyEvery is the least time between two notifications of a process.
const notifyEvery = 20 * time.Millisecond

// notifier sends notifications, at most one each notifyEvery, without making anybody
// wait.
type notifier struct {
	send func(ctx context.Context, from place) error
	once sync.Once
	due  chan struct{} // of capacity 1: several are one
	mu   sync.Mutex
	from *place // of what is due; nil: nothing is
	stop chan struct{}
	done sync.WaitGroup
}

func newNotifier(send func(ctx context.Context, from place) error) *notifier {
	return &notifier{send: send, due: make(chan struct{}, 1), stop: make(chan struct{})}
}

// notify asks for a notification, soon, that something has entered the queue.
func (n *notifier) notify(from place) {
	n.once.Do(func() { n.done.Go(n.loop) })
	n.mu.Lock()
	if n.from == nil || from.before(*n.from) {
		n.from = &from
	}
	n.mu.Unlock()
	select {
	case n.due <- struct{}{}:
	default:
	}
}

func (n *notifier) loop() {
	for {
		select {
		case <-n.stop:
			return
		case <-n.due:
		}
		n.mu.Lock()
		from := n.from
		n.from = nil
		n.mu.Unlock()
		if from == nil { // it went with the one before
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_ = n.send(ctx, *from) // a lost hint costs one poll
		cancel()
		select {
		case <-n.stop:
			return
		case <-time.After(notifyEvery):
		}
	}
}

func (n *notifier) close() {
	close(n.stop)
	n.done.Wait()
}

// Listen returns a channel that receives when something may have become claimable, or
// was revoked, until ctx ends. Notifications may be lost and may come without a reason.
func (d *DB) Listen(ctx context.Context) <-chan struct{} {
	hints := make(chan struct{}, 1)
	if d.cfg.Pooler { // a pooler's connection does not stay ours
		return hints
	}
	go d.listen(ctx, hints)
	return hints
}

func (d *DB) listen(ctx context.Context, hints chan<- struct{}) {
	// It is silent by its nature, and pinged often enough not to look dead.
	patience := d.net.quick
	var listening atomic.Bool
	hear := func(e pq.ListenerEventType, _ error) {
		if listening.Load() {
			d.front.hear(e == pq.ListenerEventReconnected)
		}
	}
	l := pq.NewDialListener(dialer{network: d.net, silence: patience, patience: patience}, d.cfg.dsn(), 100*time.Millisecond, time.Second, hear)
	// Listen waits for the first connection, for ever if need be: not here.
	go func() {
		if l.Listen(channel) == nil {
			listening.Store(true)
			d.front.hear(true)
		}
	}()
	// Close may wait for a connection that is being made, and then for somebody who takes
	// what has been notified.
	defer func() {
		listening.Store(false)
		d.front.hear(false)
		go func() {
			_ = l.Close()
			for range l.Notify { //nolint:revive // it is closed in the end
			}
		}()
	}()

	ping := time.NewTicker(patience / 2)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			go pingListener(l)
			continue
		case n := <-l.Notify:
			if n != nil { // after a reconnect it is nil; what was lost meanwhile is anywhere, as hear says
				d.front.back(readHint(n.Extra))
			}
		}
		select {
		case hints <- struct{}{}:
		default:
		}
	}
}

// pingListener keeps a listener's connection alive. lib/pq panics when the server answers
// a ping with an error and goes on (as it does when somebody cancels it), which is no
// reason for a process to end.
func pingListener(l *pq.Listener) {
	defer func() { _ = recover() }()
	_ = l.Ping() // a dead connection is made anew by the listener itself
}
