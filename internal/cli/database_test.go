package cli

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/postgres"
)

func parseDatabase(t *testing.T, vars map[string]string, args ...string) (postgres.Config, error) {
	t.Helper()
	var c postgres.Config
	f := NewFlags("prog", "does things")
	f.Database(&c)
	env, _, _ := newEnv(vars, args...)
	return c, f.Parse(env)
}

// The precedence is: single flags, the URL, single variables, defaults. A field that the
// URL decides is empty, since a field of the Config counts more than its URL.
func TestDatabase_Precedence(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("from file\n"), 0o600))
	const url = "postgres://u:p@h:1/n?sslmode=require"
	type vars = map[string]string
	defaults := postgres.Config{User: "flower", Host: "localhost", Port: 5432, Name: "flower", SSLMode: "prefer"}
	with := func(change func(c *postgres.Config)) postgres.Config {
		c := defaults
		change(&c)
		return c
	}
	all := vars{
		"DB_USER": "vu", "DB_PASS": "vp", "DB_HOST": "vh", "DB_PORT": "2", "DB_NAME": "vn",
		"DB_SSLMODE": "disable", "FLOWER_DB_POOLER": "true",
	}
	and := func(more vars) vars {
		both := vars{}
		for _, m := range []vars{all, more} {
			maps.Copy(both, m)
		}
		return both
	}
	fromVars := postgres.Config{User: "vu", Password: "vp", Host: "vh", Port: 2, Name: "vn", SSLMode: "disable", Pooler: true}

	for name, c := range map[string]struct {
		vars vars
		args []string
		want postgres.Config
	}{
		"defaults":  {want: defaults},
		"variables": {vars: all, want: fromVars},
		"flags beat variables": {
			vars: all,
			args: []string{"-dbuser=fu", "-dbpass=fp", "-dbhost=fh", "-dbport=3", "-dbname=fn", "-dbsslmode=allow", "-db-pooler=false"},
			want: postgres.Config{User: "fu", Password: "fp", Host: "fh", Port: 3, Name: "fn", SSLMode: "allow"},
		},
		"URL beats defaults": {vars: vars{"DATABASE_URL": url}, want: postgres.Config{URL: url}},
		"URL beats variables": {
			vars: and(vars{"DATABASE_URL": url}),
			want: postgres.Config{URL: url, Pooler: true},
		},
		"URL's flag beats its variable": {
			vars: vars{"DATABASE_URL": "postgres://other/n"}, args: []string{"-database-url", url},
			want: postgres.Config{URL: url},
		},
		"flags beat the URL": {
			vars: and(vars{"DATABASE_URL": url}),
			args: []string{"-dbpass=fp", "-dbhost=fh", "-dbport=3"},
			want: postgres.Config{URL: url, Password: "fp", Host: "fh", Port: 3, Pooler: true},
		},
		"flags beat the URL's flag": {
			args: []string{"-database-url", url, "-dbuser", "fu", "-dbname", "fn", "-dbsslmode", "disable"},
			want: postgres.Config{URL: url, User: "fu", Name: "fn", SSLMode: "disable"},
		},
		"a flag that says the default beats the URL": {
			vars: vars{"DATABASE_URL": url}, args: []string{"-dbhost", "localhost"},
			want: postgres.Config{URL: url, Host: "localhost"},
		},
		"what the URL lacks comes from variables": {
			vars: and(vars{"DATABASE_URL": "postgres://h"}),
			want: with(func(c *postgres.Config) { *c = fromVars; c.URL = "postgres://h"; c.Host = "" }),
		},
		"what the URL lacks comes from defaults": {
			vars: vars{"DATABASE_URL": "postgres://h/n"},
			want: with(func(c *postgres.Config) { c.URL = "postgres://h/n"; c.Host = ""; c.Name = "" }),
		},
		"pairs": {
			vars: and(vars{"DATABASE_URL": `host=a,b port=1,2 user='u v' password='it\'s =' dbname=n`}),
			want: postgres.Config{URL: `host=a,b port=1,2 user='u v' password='it\'s =' dbname=n`, SSLMode: "disable", Pooler: true},
		},
		"settings in the URL's query": {
			vars: vars{"DATABASE_URL": "postgres:///?host=/run/postgresql&dbname=n&user=u&port=1&sslmode=disable"},
			want: postgres.Config{URL: "postgres:///?host=/run/postgresql&dbname=n&user=u&port=1&sslmode=disable"},
		},

		"password file": {
			vars: vars{"DB_PASS_FILE": file},
			want: with(func(c *postgres.Config) { c.Password = "from file" }),
		},
		"password file for a URL": {
			vars: vars{"DATABASE_URL": "postgres://u@h:1/n?sslmode=require", "DB_PASS_FILE": file},
			want: postgres.Config{URL: "postgres://u@h:1/n?sslmode=require", Password: "from file"},
		},
		"URL's password beats the variable for a file": {
			vars: vars{"DATABASE_URL": url, "DB_PASS_FILE": "/does/not/exist"}, want: postgres.Config{URL: url},
		},
		"URL's password beats two variables that contradict each other": {
			vars: vars{"DATABASE_URL": url, "DB_PASS": "x", "DB_PASS_FILE": file}, want: postgres.Config{URL: url},
		},
		"flag for a password file beats URL and variable": {
			vars: vars{"DATABASE_URL": url, "DB_PASS": "vp"}, args: []string{"-dbpass-file", file},
			want: postgres.Config{URL: url, Password: "from file"},
		},
		"flag beats the variable for a file": {
			vars: vars{"DB_PASS_FILE": "/does/not/exist"}, args: []string{"-dbpass", "fp"},
			want: with(func(c *postgres.Config) { c.Password = "fp" }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseDatabase(t, c.vars, c.args...)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestDatabase_Errors(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	type vars = map[string]string
	for name, c := range map[string]struct {
		vars vars
		args []string
		want []string
	}{
		"port":                      {vars: vars{"DB_PORT": "0"}, want: []string{"environment variable DB_PORT", `"0"`, "from 1 to 65535"}},
		"sslmode":                   {args: []string{"-dbsslmode", "on"}, want: []string{"flag -dbsslmode", `"on"`, "verify-full"}},
		"scheme":                    {vars: vars{"DATABASE_URL": "mysql://u:s3cret@h/n"}, want: []string{"environment variable DATABASE_URL", "postgres://"}},
		"no URL":                    {args: []string{"-database-url", "postgres://u:s3cret@h:port/n"}, want: []string{"flag -database-url", "postgres://user"}},
		"neither":                   {args: []string{"-database-url", "s3cret"}, want: []string{"flag -database-url", "pairs"}},
		"broken pairs":              {args: []string{"-database-url", "host=h s3cret x=1"}, want: []string{"flag -database-url", "pairs"}},
		"open quote":                {args: []string{"-database-url", "password='s3cret"}, want: []string{"flag -database-url", "quote"}},
		"a password with @ and /":   {args: []string{"-database-url", "postgres://u:p@s3cret/x@h:1/n"}, want: []string{"flag -database-url", "%40"}},
		"a password with @ and #":   {args: []string{"-database-url", "postgres://u:p@s3cret#x@h:1/n"}, want: []string{"flag -database-url", "%40"}},
		"a password with @ and ?":   {args: []string{"-database-url", "postgres://u:p@s3cret?x@h:1/n"}, want: []string{"flag -database-url", "%40"}},
		"a host with its port":      {args: []string{"-dbhost", "127.0.0.1:5433"}, want: []string{`"127.0.0.1:5433"`, "-dbport"}},
		"a URL for a host":          {vars: vars{"DB_HOST": "postgres://db"}, want: []string{`"postgres://db"`, "a name or an address alone"}},
		"a host in brackets":        {args: []string{"-dbhost", "[::1]"}, want: []string{`"[::1]"`, "without brackets"}},
		"one of several, with port": {vars: vars{"DATABASE_URL": "host=a,b:1 dbname=n"}, want: []string{`"b:1"`, "-dbport"}},
		"both variables":            {vars: vars{"DB_PASS": "s3cret", "DB_PASS_FILE": empty}, want: []string{"DB_PASS and", "DB_PASS_FILE are both set"}},
		"both flags":                {args: []string{"-dbpass", "s3cret", "-dbpass-file", empty}, want: []string{"-dbpass and", "-dbpass-file are both set"}},
		"no such file":              {vars: vars{"DB_PASS_FILE": "/does/not/exist"}, want: []string{"environment variable DB_PASS_FILE", "/does/not/exist"}},
		"empty file":                {args: []string{"-dbpass-file", empty}, want: []string{"flag -dbpass-file", "empty"}},
		"boolean variable":          {vars: vars{"FLOWER_DB_POOLER": "maybe"}, want: []string{"FLOWER_DB_POOLER", "true or false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseDatabase(t, c.vars, c.args...)
			var usage *UsageError
			require.ErrorAs(t, err, &usage)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
}

// A server out there proves who it is, or somebody says that it need not. "-dbhost db" is
// a promise, and so is whatever can only be reached in a private network.
func TestDatabase_SecH2_WhoNeedNotProveWhoItIs(t *testing.T) {
	t.Parallel()
	type vars = map[string]string
	for name, c := range map[string]struct {
		vars   vars
		args   []string
		refuse bool
		warn   bool
	}{
		"this machine":                   {},
		"a socket":                       {args: []string{"-dbhost", "/var/run/postgresql"}},
		"loopback":                       {args: []string{"-dbhost", "::1"}},
		"a service of a compose file":    {args: []string{"-dbhost", "db"}, warn: true},
		"a private address":              {vars: vars{"DB_HOST": "172.18.0.2"}, warn: true},
		"a private name":                 {vars: vars{"DB_HOST": "pg.prod.svc.cluster.local"}, warn: true},
		"a service, which is accepted":   {vars: vars{"DB_HOST": "db", "DB_SSLMODE": "disable"}},
		"a name out there":               {args: []string{"-dbhost", "db.example.com"}, refuse: true},
		"an address out there":           {args: []string{"-dbhost", "203.0.113.5"}, refuse: true},
		"a name out there, in a URL":     {vars: vars{"DATABASE_URL": "postgres://u@db.example.com/n"}, refuse: true},
		"one of several, in pairs":       {vars: vars{"DATABASE_URL": "host=localhost,db.example.com dbname=n"}, refuse: true},
		"verify-full":                    {args: []string{"-dbhost", "db.example.com", "-dbsslmode", "verify-full"}},
		"verify-full, in a variable":     {vars: vars{"DB_HOST": "db.example.com", "DB_SSLMODE": "verify-full"}},
		"verify-full, in a URL":          {vars: vars{"DATABASE_URL": "postgres://u@db.example.com/n?sslmode=verify-full"}},
		"less, which is accepted":        {args: []string{"-dbhost", "db.example.com", "-dbsslmode", "prefer"}},
		"less, which is accepted in URL": {vars: vars{"DATABASE_URL": "host=db.example.com sslmode=require"}},
	} {
		var cfg postgres.Config
		f := NewFlags("prog", "does things")
		f.Database(&cfg)
		env, _, _ := newEnv(c.vars, c.args...)
		err := f.Parse(env)
		if c.refuse {
			require.ErrorContains(t, err, "-dbsslmode verify-full", name)
			continue
		}
		require.NoError(t, err, name)
		var log bytes.Buffer
		f.Report(slog.New(slog.NewTextHandler(&log, nil)))
		require.Equal(t, c.warn, strings.Contains(log.String(), "does not prove who it is"), "%s: %s", name, log.String())
	}
}

func TestDatabase_SecE2_TheDriversTraceIsRefused(t *testing.T) {
	t.Parallel()
	_, err := parseDatabase(t, map[string]string{"PQGO_DEBUG": "1"})
	require.ErrorContains(t, err, "PQGO_DEBUG")
}
