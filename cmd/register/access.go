package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/cli"
)

// accessSettings say who may call.
func accessSettings(flags *cli.Flags, getenv func(string) string, cfg *config) {
	flags.Group("Access")
	a := &cfg.access
	var trusted []string
	var role string
	flags.Var(cli.Text(&a.TokensFile, ""), "tokens-file FILE", "FLOWER_TOKENS_FILE",
		"who may do what, a line each (register token -name cron -role registrar makes one); FLOWER_TOKENS has such lines, too")
	flags.Var(cli.List(&trusted), "trusted-proxy NETWORK,…", "FLOWER_TRUSTED_PROXY",
		"proxies whose X-Forwarded-User, -For and -Proto count, as in 10.1.2.3 or 10.1.0.0/16")
	flags.Var(cli.OneOf(&role, access.Reader.String(), access.Roles()...), "proxy-role ROLE", "FLOWER_PROXY_ROLE",
		"what their users may do: "+strings.Join(access.Roles(), ", "))
	flags.Var(cli.Text(&a.Proxy.RoleHeader, ""), "proxy-role-header NAME", "FLOWER_PROXY_ROLE_HEADER",
		"header of theirs that names a user's role, such as X-Forwarded-Role")
	flags.Needs("trusted-proxy", "proxy-role", "proxy-role-header")
	flags.Var(cli.Bool(&cfg.web.ReadOnly), "readonly", "FLOWER_READONLY", "refuse whatever changes something")
	flags.Var(cli.Int(&cfg.maxWaiting, 0, 0, 1_000_000), "max-waiting N", "FLOWER_MAX_WAITING",
		"flows of one caller that may wait to begin, about; beyond, 429; 0 is any number")
	flags.NotEmpty("tokens-file", "trusted-proxy") // nobody would be asked who he is
	flags.Check(func() error {
		a.Tokens = getenv("FLOWER_TOKENS")
		a.CookiePath = cfg.web.BasePath // others may be on the same host
		a.Proxy.Role, _ = access.ParseRole(role)
		var err error
		a.Proxy.Trusted, err = networks(trusted)
		return err
	})
}

// networks reads addresses and networks.
func networks(texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if ip, e := netip.ParseAddr(text); e == nil {
			prefix, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("-trusted-proxy (FLOWER_TRUSTED_PROXY) %q: must be an address or a network, as in 10.1.2.3 or 10.1.0.0/16", text)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// onHangup calls reload at each SIGHUP, until ctx ends.
func onHangup(ctx context.Context, env *cli.Env, log *slog.Logger, reload func()) {
	hangups := env.Hangups()
	go func() {
		for {
			select {
			case s := <-hangups:
				log.Info("reading files again", "cause", s.String())
				reload()
			case <-ctx.Done():
				return
			}
		}
	}()
}
