package main

import (
	"slices"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/client"
)

// commands are what register does beside serving, each when its name is the first argument.
var commands = slices.Concat(client.Commands(), []cli.Command{
	{Name: "apply", Summary: "make workflows what files say", Run: apply},
	{Name: "export", Summary: "write workflows as files", Run: export},
	{Name: "token", Summary: "make a token for somebody who calls", Run: token},
})
