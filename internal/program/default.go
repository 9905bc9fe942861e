package program

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config says what the programs that come with Flower may do. Its zero value is the
// default.
type Config struct {
	// HTTPAllow has the networks that requests may go to. Empty is all but the
	// addresses that are always refused: link-local, metadata services, multicast.
	HTTPAllow []netip.Prefix

	// HTTPTimeout bounds one request, its answer included. 0 is 30 seconds.
	HTTPTimeout time.Duration

	Command CommandConfig

	// SQL has the databases that SQL tasks may use, by the names that their definitions
	// use. Without any, the program is off.
	SQL map[string]Database

	// Container says what containers may do. The zero value is that there are none.
	Container ContainerConfig

	// CallbackURL is where whoever answers a request of HTTPRequest later can call
	// register: http://flower.example.com:8000. Empty: nobody can.
	CallbackURL string

	// Callbacks is who is told that somebody may call. Whoever only checks parameters needs
	// none.
	Callbacks Callbacks

	// Flows is where Flow gets flows from. Whoever only checks parameters needs none.
	Flows Flows
}

// Validate checks the settings.
func (c Config) Validate() error {
	if c.HTTPTimeout < 0 {
		return fmt.Errorf("HTTP timeout %s: must not be negative", c.HTTPTimeout)
	}
	for _, p := range c.HTTPAllow {
		if !p.IsValid() {
			return fmt.Errorf("HTTP allow list: %s is not a network", p)
		}
	}
	if c.CallbackURL != "" {
		u, err := parseURL(c.CallbackURL)
		if err == nil && (u.User != nil || u.RawQuery != "" || u.Fragment != "") {
			err = errors.New("it must have neither user nor query")
		}
		if err != nil {
			return fmt.Errorf("callback URL (-callback-url, FLOWER_CALLBACK_URL): %w", err)
		}
	}
	if err := c.Container.validate(); err != nil {
		return fmt.Errorf("containers: %w", err)
	}
	return c.Command.Validate()
}

// Default returns the programs that come with Flower, by the names that task definitions
// use. Those that the settings keep off are there as well, so that whoever registers can
// check their parameters; a watcher runs Default(cfg).Enabled().
func Default(cfg Config) Set {
	dialer := newDialer(cfg.HTTPAllow)
	return Set{
		"Container":           newContainers(cfg.Container),
		"NoOp":                noOp{},
		"Test1":               echoRandom{},
		"Test2":               echoRandom{},
		"Test3":               echoRandom{},
		"EchoRandomTimeSleep": echoRandom{},
		"EchoParamTimeSleep":  echoParam{},
		"Command":             command{cfg.Command},
		"HTTPPostRequest":     newHTTPPost(dialer, cfg.HTTPTimeout),
		"HTTPRequest":         newHTTPRequest(dialer, cfg),
		"SQL":                 sqlProgram{cfg.SQL},
		"Wait":                wait{},
		"Flow":                subflow{cfg.Flows},
		"Approve":             approve{},
	}
}
