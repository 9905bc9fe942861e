package main

import "github.com/d-tsuji/flower/internal/cli"

// commands are what register does beside serving, each when its name is the first argument.
var commands = []cli.Command{
	{Name: "token", Summary: "make a token for somebody who calls", Run: token},
}
