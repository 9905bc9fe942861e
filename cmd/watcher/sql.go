package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/program"
)

// sqlConfig says which databases SQL tasks may use.
type sqlConfig struct {
	names    []string
	urls     map[string]string // of those that are not Flower's own
	role     string
	sessions int
}

func sqlSettings(flags *cli.Flags, getenv func(string) string, cfg *config) {
	c := &cfg.sql
	flags.Var(cli.List(&c.names), "sql-connections NAME,…", "FLOWER_SQL_CONNECTIONS",
		"databases that SQL tasks may use: flower is its own; of others, FLOWER_SQL_CONNECTION_NAME has the URL")
	flags.Var(cli.Text(&c.role, ""), "sql-role ROLE", "FLOWER_SQL_ROLE",
		"the role of SQL tasks in its own database; empty is its own role")
	flags.Var(cli.Int(&c.sessions, 4, 1, 1000), "sql-sessions N", "FLOWER_SQL_SESSIONS",
		"SQL tasks that may use one database at a time: each holds a connection")
	flags.Needs("sql-connections", "sql-sessions")
	flags.Check(func() error { return c.resolve(getenv, cfg.database.Pooler) })
}

var connectionName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// resolve reads the URLs. From the environment, since others can read a flag; none of its
// errors repeats one.
func (c *sqlConfig) resolve(getenv func(string) string, pooler bool) error {
	c.urls = map[string]string{}
	for _, name := range c.names {
		variable := "FLOWER_SQL_CONNECTION_" + strings.ToUpper(name)
		switch {
		case !connectionName.MatchString(name):
			return fmt.Errorf("-sql-connections (FLOWER_SQL_CONNECTIONS): %q is not a name of small letters, digits and _", name)
		case name == program.OwnDatabase && pooler:
			return errors.New("-sql-connections (FLOWER_SQL_CONNECTIONS): flower is not possible with -db-pooler, " +
				"where what a statement does to its session would reach others")
		case name == program.OwnDatabase:
			continue
		}
		url := getenv(variable)
		if url == "" {
			return fmt.Errorf("-sql-connections (FLOWER_SQL_CONNECTIONS) names %s, and %s has no URL for it", name, variable)
		}
		if _, err := c.open(url); err != nil {
			return fmt.Errorf("environment variable %s: %w", variable, err)
		}
		c.urls[name] = url
	}
	if c.role != "" && !slices.Contains(c.names, program.OwnDatabase) {
		return errors.New("-sql-role (FLOWER_SQL_ROLE) is for flower, which -sql-connections does not name")
	}
	return nil
}

func (c *sqlConfig) open(url string) (*postgres.Statements, error) {
	return postgres.OpenStatements(postgres.Config{URL: url}, c.sessions)
}

// databases returns what SQL tasks can use.
func (c *sqlConfig) databases(own *postgres.DB) (map[string]program.Database, error) {
	all := make(map[string]program.Database, len(c.names))
	for _, name := range c.names {
		if name == program.OwnDatabase {
			all[name] = database{own.Statements(c.role, c.sessions)}
			continue
		}
		other, err := c.open(c.urls[name])
		if err != nil {
			return nil, err
		}
		all[name] = database{other}
	}
	return all, nil
}

// database is a database for SQL tasks: those who run statements and those who speak to
// the server do not know each other.
type database struct{ *postgres.Statements }

func (d database) Run(ctx context.Context, s program.Statement) (json.RawMessage, error) {
	return d.Statements.Run(ctx, postgres.Statement(s))
}
