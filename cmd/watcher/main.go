// Watcher runs tasks: it polls the database for those that can go, and feeds them to a
// pool of workers.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/metrics"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/process"
	"github.com/d-tsuji/flower/internal/program"
	"github.com/d-tsuji/flower/internal/watcher"
)

func main() {
	process.Supervise() // if a task's command started this process
	cli.Main("watcher", run)
}

// config is everything that can be set.
type config struct {
	database    postgres.Config
	watcher     watcher.Config
	programs    program.Config
	sql         sqlConfig
	secretsDir  string
	log         cli.LogConfig
	migrate     string // auto or off
	healthAddr  string
	metricsAddr string
	healthcheck bool
	list        bool
}

func run(ctx context.Context, env *cli.Env) error {
	var cfg config
	flags := settings(env, &cfg)
	if err := flags.Parse(env); err != nil {
		return err
	}
	if cfg.healthcheck {
		return cli.Healthcheck(ctx, "http://"+cfg.healthAddr)
	}
	log := env.Logger(cfg.log)
	db, err := postgres.Open(cfg.database, log.With("component", "watcher"))
	if err != nil {
		return err
	}
	if cfg.programs.SQL, err = cfg.sql.databases(db); err != nil {
		return errors.Join(err, db.Close())
	}
	if cfg.list {
		return errors.Join(program.Default(cfg.programs).List(env.Stdout), db.Close())
	}
	flags.Report(log.With("component", "watcher"))
	return errors.Join(work(ctx, cfg, db, log), db.Close())
}

// work waits for the database and runs tasks until ctx ends and they are done.
func work(ctx context.Context, cfg config, db *postgres.DB, log *slog.Logger) error {
	secrets, err := openSecrets(cfg.secretsDir, log)
	if err != nil {
		return err
	}
	cfg.programs.Container.Ledger, cfg.programs.Flows, cfg.programs.Callbacks = db, db, db
	set := newPrograms(cfg.programs, secrets, log)
	db.CheckParameters(set.all.CheckWorkflow) // what a task registers is checked as in register
	m := metrics.New("watcher", cli.Version(), log.With("component", "watcher"))
	cfg.watcher.Meter = m.Work()
	w, err := watcher.New(cfg.watcher, db, set, log)
	if err != nil {
		return err
	}
	m.Pulse(w.Pulse)
	m.Pools(db.EachPool)
	// Health checks are answered while it waits for the database, and while it drains.
	live, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var beside errgroup.Group
	if cfg.healthAddr != "" {
		serve, listenErr := w.Health(live, cfg.healthAddr)
		if listenErr != nil {
			return listenErr
		}
		beside.Go(serve)
	}
	if cfg.metricsAddr != "" {
		serve, listenErr := m.Serve(live, cfg.metricsAddr)
		if listenErr != nil {
			return listenErr
		}
		beside.Go(serve)
	}
	prepare := db.Migrate
	if cfg.migrate == "off" {
		prepare = db.WaitReady
	}
	if err := prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // told to stop while it waited
		}
		return err
	}
	beside.Go(func() error {
		set.Housekeep(live, log)
		return nil
	})
	err = w.Run(ctx)
	end()
	return errors.Join(err, beside.Wait())
}

func settings(env *cli.Env, cfg *config) *cli.Flags {
	flags := cli.NewFlags(env.Name, "runs the tasks of registered flows",
		"watcher -dbhost db -workers 20",
		"watcher -programs")
	cfg.database.Application = "flower-watcher"
	flags.Database(&cfg.database)
	flags.Var(cli.OneOf(&cfg.migrate, "auto", "auto", "off"), "migrate WHEN", "FLOWER_MIGRATE",
		"bring the schema up to date: auto (at start), off")

	flags.Group("Tasks")
	w := &cfg.watcher
	w.Host, _ = os.Hostname() // for people; without it they see the process's number
	w.PID, w.Version = os.Getpid(), cli.Version()
	flags.Var(cli.Int(&w.Workers, 5, 1, 10_000), "workers N", "WORKER_COUNT", "tasks that run at a time")
	flags.Var(cli.Duration(&w.PollInterval, 5*time.Second, 10*time.Millisecond, time.Hour), "poll-interval TIME",
		"POLLING_INTERVAL_SECOND", "how often to look for tasks when nothing else wakes it; 5 is 5s")
	flags.Var(cli.Duration(&w.ShutdownTimeout, 25*time.Second, 0, 24*time.Hour), "shutdown-timeout TIME",
		"FLOWER_SHUTDOWN_TIMEOUT", "how long running tasks may take at the end, before they are handed back")
	flags.Var(cli.Bool(&cfg.list), "programs", "", "list the programs that tasks can run, with their parameters, and stop")

	programSettings(flags, &cfg.programs)

	secretSettings(flags, &cfg.secretsDir)

	sqlSettings(flags, env.Getenv, cfg)

	containerSettings(flags, &cfg.programs.Container)
	flags.Check(func() error { return cfg.programs.Validate() })

	flags.Group("Health and metrics")
	flags.Var(cli.Text(&cfg.healthAddr, ""), "health-addr HOST:PORT", "FLOWER_HEALTH_ADDR",
		"where to answer /healthz and /readyz; empty is nowhere")
	flags.Var(cli.Bool(&cfg.healthcheck), "healthcheck", "",
		"ask the watcher that answers there whether it is ready: exit code 0 or 1")
	flags.Var(cli.Text(&cfg.metricsAddr, ""), "metrics-addr HOST:PORT", "FLOWER_METRICS_ADDR",
		"where to serve /metrics for Prometheus, and on a loopback address /debug/pprof; empty is nowhere")
	flags.Check(func() error {
		if cfg.healthcheck && cfg.healthAddr == "" {
			return errors.New("-healthcheck needs -health-addr: where the watcher answers")
		}
		return nil
	})
	flags.Logging(&cfg.log)
	return flags
}
