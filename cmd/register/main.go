// Register serves HTTP: it registers flows and shows how they go. With a command as its
// first argument it does that instead.
package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/api"
	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/program"
	"github.com/d-tsuji/flower/internal/register"
	"github.com/d-tsuji/flower/internal/web"
)

func main() { cli.Main("register", cli.WithCommands(run, commands...)) }

// config is everything that can be set.
type config struct {
	database    postgres.Config
	web         register.Config
	access      access.Config
	log         cli.LogConfig
	maxWaiting  int
	metricsAddr string
	migrate     string // auto, off, only or roles
	healthcheck bool
}

func run(ctx context.Context, env *cli.Env) error {
	var cfg config
	flags := settings(env, &cfg)
	if err := flags.Parse(env); err != nil {
		return err
	}
	if cfg.healthcheck {
		return cli.Healthcheck(ctx, cfg.web.URL())
	}
	log := env.Logger(cfg.log)
	flags.Report(log.With("component", "register"))
	control, err := access.Open(cfg.access, log.With("component", "register"))
	if err != nil {
		return err
	}
	cfg.web.Access = control
	cfg.database.AwaitSchema = true
	db, err := postgres.Open(cfg.database, log.With("component", "register"))
	if err != nil {
		return err
	}
	db.CheckParameters(program.Default(program.Config{}).CheckWorkflow) // whatever the watchers are allowed to run
	db.LimitWaiting(cfg.maxWaiting)
	return errors.Join(serve(ctx, env, cfg, db, log), db.Close())
}

// serve prepares the database and serves until ctx ends.
func serve(ctx context.Context, env *cli.Env, cfg config, db *postgres.DB, log *slog.Logger) error {
	prepare := db.Migrate
	switch cfg.migrate {
	case "off":
		prepare = db.WaitReady
	case "roles":
		prepare = db.MigrateRoles
	}
	if cfg.migrate == "only" || cfg.migrate == "roles" {
		err := prepare(ctx)
		if err != nil && ctx.Err() != nil {
			return ctx.Err() // told to stop while it waited
		}
		return err
	}
	cfg.web.LoginPage = "/login"
	live, end := context.WithCancel(context.WithoutCancel(ctx)) // metrics tell of the end, too
	defer end()
	measured, err := measure(live, &cfg, db, log)
	if err != nil {
		return err
	}
	server := register.New(cfg.web, db, log, sites(cfg, db, log)...)
	onHangup(ctx, env, log.With("component", "register"), func() {
		cfg.web.Access.Reload()
		server.Reload()
	})
	err = server.Run(ctx, prepare)
	end()
	return errors.Join(err, measured())
}

// sites are what is served beside /register and health checks.
func sites(cfg config, db *postgres.DB, log *slog.Logger) []register.Site {
	a := api.New(api.Config{
		Version: cli.Version(), Programs: programs(), Checks: program.Default(program.Config{}), BasePath: cfg.web.BasePath, Access: cfg.web.Access,
	}, db, log)
	pages := web.New(web.Config{BasePath: cfg.web.BasePath, Access: cfg.web.Access, Version: cli.Version()}, db, log)
	return []register.Site{
		{Prefix: api.Prefix, Handler: a, Patience: api.Patience},
		{Prefix: "/openapi.json", Handler: a},
		{Prefix: "/docs", Handler: a},
		{Prefix: "/", Handler: pages.Handler(), Refuse: pages.Refuse},
	}
}

func settings(env *cli.Env, cfg *config) *cli.Flags {
	flags := cli.NewFlags(env.Name, "registers flows by HTTP, for watchers to run",
		"register -dbhost db -webhost 0.0.0.0",
		`curl -X POST localhost:8000/register -d '{"taskId": "sample"}'`)
	cfg.database.Application = "flower-register"
	flags.Database(&cfg.database)
	flags.Var(cli.OneOf(&cfg.migrate, "auto", "auto", "off", "only", "roles"), "migrate WHEN", "FLOWER_MIGRATE",
		"bring the schema up to date: auto (at start), off, only (and stop), roles (as only, and give the database's roles their rights)")

	flags.Group("Web")
	web := &cfg.web
	flags.Var(cli.Text(&web.Host, "localhost"), "webhost ADDRESS", "FLOWER_WEBHOST",
		"where to listen; 0.0.0.0 lets others in, without tokens to POST /register and callbacks alone")
	flags.Var(cli.Int(&web.Port, 8000, 0, 65535), "webport PORT", "FLOWER_WEBPORT", "its port; 0 takes a free one")
	flags.Var(cli.Bool(&web.Insecure), "insecure", "FLOWER_INSECURE",
		"without tokens: serve everything to whoever reaches that address")
	flags.Var(cli.List(&web.Hosts), "hosts NAME,…", "FLOWER_HOSTS",
		"more host names that requests may come for, as in flower.example.com")
	flags.Var(cli.Text(&web.BasePath, ""), "base-path PATH", "FLOWER_BASE_PATH",
		"where browsers find it behind a proxy, as in /flower; the proxy may take that off or not")
	flags.Var(cli.Text(&web.TLSCert, ""), "tls-cert FILE", "FLOWER_TLS_CERT", "serve by TLS, with this certificate and its chain")
	flags.Var(cli.Text(&web.TLSKey, ""), "tls-key FILE", "FLOWER_TLS_KEY", "its key")
	flags.NotEmpty("tls-cert", "tls-key")
	flags.Var(cli.Duration(&web.ShutdownTimeout, 10*time.Second, time.Second, time.Hour), "shutdown-timeout TIME",
		"FLOWER_SHUTDOWN_TIMEOUT", "how long requests in flight may take at the end")
	flags.Var(cli.Bool(&cfg.healthcheck), "healthcheck", "",
		"ask the register that runs here whether it is ready: exit code 0 or 1")
	flags.Check(func() error {
		if cfg.healthcheck && web.Port == 0 {
			return errors.New("-healthcheck needs -webport: the port of the register that runs")
		}
		return web.Validate()
	})
	accessSettings(flags, env.Getenv, cfg)
	flags.Group("Metrics")
	flags.Var(cli.Text(&cfg.metricsAddr, ""), "metrics-addr HOST:PORT", "FLOWER_METRICS_ADDR",
		"where to serve /metrics for Prometheus, and on a loopback address /debug/pprof; empty is nowhere")
	flags.Logging(&cfg.log)
	return flags
}
