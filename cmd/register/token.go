package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/cli"
)

// token makes a token: it prints it, this once, and the line that lets it in.
func token(_ context.Context, env *cli.Env) error {
	flags := cli.NewFlags(env.Name, "makes a token for somebody who calls register",
		env.Name+" -name cron -role registrar",
		env.Name+" -name alice -role operator -until 2999-12-31 -file tokens")
	var name, role, until, file string
	flags.Group("Token")
	flags.Var(cli.Text(&name, ""), "name NAME", "", "whose it is: what it does is recorded under this name")
	flags.Var(cli.OneOf(&role, access.Reader.String(), access.Roles()...), "role ROLE", "",
		strings.Join(access.Roles(), ", ")+": each may do what the ones before it may")
	flags.Var(cli.Text(&until, ""), "until DAY", "", "the last day it is good for, or a time; empty is for ever")
	flags.Var(cli.Text(&file, ""), "file FILE", "",
		"add its line to this file, and print the token alone; an existing file must be nobody else's to read")
	var expires time.Time
	flags.Check(func() error {
		if name == "" {
			return errors.New("-name is missing: whose token it is")
		}
		if until == "" {
			return nil
		}
		var err error
		if expires, err = access.ParseExpiry(until); err == nil && !time.Now().Before(expires) {
			err = fmt.Errorf("-until %s: that is over by the clock here (%s), and the token would never be good",
				until, time.Now().UTC().Format(time.RFC3339))
		}
		return err
	})
	if err := flags.Parse(env); err != nil {
		return err
	}
	parsed, _ := access.ParseRole(role)
	secret, line, err := access.NewToken(name, parsed, expires)
	if err != nil {
		return &cli.UsageError{Problem: "-name: " + err.Error()}
	}
	if file != "" {
		if err := addLine(file, line); err != nil {
			return err
		}
		fmt.Fprintln(env.Stdout, secret)
		return nil
	}
	fmt.Fprintf(env.Stdout, "The token, shown this once: whoever calls sends it, as in\n"+
		"  curl -H 'Authorization: Bearer %s' …\n\n"+
		"Its line for the file of register -tokens-file, which must be its owner's alone (chmod 600):\n  %s\n", secret, line)
	return nil
}

// addLine adds a line to a file that is its owner's alone; one that is not there is made.
func addLine(path, line string) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: others can use it (%s): chmod 600 it first", path, info.Mode())
	}
	last := make([]byte, 1)
	if n := info.Size(); n > 0 {
		if _, err := file.ReadAt(last, n-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = file.WriteString(line + "\n") // one write: whoever reads sees it whole
	return err
}
