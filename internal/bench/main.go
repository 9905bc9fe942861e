// Bench measures Flower's engine, with the real watcher and register code, against a
// private PostgreSQL with fixed settings, and beside each figure the floor: the same
// number of rows taken through the same changes of state by the barest batched SQL on a
// bare table, in the same run. Only the ratios mean anything: a machine's own speed
// moves by a quarter within minutes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	cli.LessGC() // as both programs have it
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// defaultWorkers are as many as the peers have.
const defaultWorkers = 1000

// workload measures one thing, some figures, on an empty database of its own.
type workload struct {
	name  string
	about string
	run   func(context.Context, *bench) error
}

var workloads = []workload{
	{"W1", "independent no-op tasks, registered before, one watcher", runIndependent},
	{"W2", "flows of 3 tasks in a chain, registered before, one watcher", runChains},
	{"W2b", "diamonds of 30 tasks (1, 28, 1), registered before, one watcher", runDiamonds},
	{"W3", "POST /register of a flow of 3 tasks over HTTP with keep-alive", runRegister},
	{"W4", "an idle system, one task each 50 ms: from the answer of the registration to the start of the program", runLatency},
	{"W5", "W1 and W2 again with a history, and behind a backlog", runHistory},
	{"W6", "W2 with 4 watchers", runWatchers},
	{"W7", "an idle watcher", runIdle},
	{"W8", "an hour of steady load, then half an hour beside an open transaction (only if asked for: -only W8)", runSteady},
	{"guard", "what the triggers for changes by hand cost the engine", runGuard},
}

func run(ctx context.Context, args []string) error {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.Float64Var(&o.scale, "scale", 1, "size of the workloads: 0.01 is a hundredth")
	fs.IntVar(&o.workers, "workers", defaultWorkers, "workers of a watcher")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each figure and its floor are measured, in turn; the median counts")
	fs.StringVar(&o.dsn, "dsn", "", "a server to use instead of a private one; its databases flower_bench_* are dropped")
	only := fs.String("only", "", "workloads to run, as in W1,W2; empty is all")
	fs.Var(&o.peers, "peer", "NAME=COMMAND of another queue's program, see peers; may be repeated")
	fs.StringVar(&o.jsonFile, "json", "", "file to append the results to, as JSON lines")
	profile := fs.String("cpuprofile", "", "file for a profile of this process: the watcher's and register's code")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	b, err := start(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	b.printSettings()
	for _, w := range workloads {
		if asked := slices.Contains(strings.Split(*only, ","), w.name); !asked && (*only != "" || w.name == "W8") {
			continue
		}
		b.begin(w)
		if err := w.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}
