package internal_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// tracked returns the text of each file of the repository, by its path.
func tracked(t *testing.T) map[string]string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	list.Dir = ".."
	names, err := list.Output()
	if err != nil {
		t.Skip("this is no checkout: ", err)
	}
	files := map[string]string{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		text, err := os.ReadFile(filepath.Join("..", string(name)))
		if os.IsNotExist(err) {
			continue // removed, and not yet committed
		}
		require.NoError(t, err)
		if utf8.Valid(text) {
			files[string(name)] = string(text)
		}
	}
	require.Greater(t, len(files), 100)
	return files
}

// secrets are what keys and tokens look like.
var secrets = map[string]*regexp.Regexp{
	"a private key":       regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{100}`),
	"a token of Flower":   regexp.MustCompile(`\bflower_[A-Za-z0-9_-]{43}\b`),
	"a key of AWS":        regexp.MustCompile(`\b(AKIA|ASIA)[0-9A-Z]{16}\b`),
	"a token of GitHub":   regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})`),
	"a token of GitLab":   regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20}\b`),
	"a token of Slack":    regexp.MustCompile(`\bxox[abposr]-[A-Za-z0-9-]{20}`),
	"a key of Google":     regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}\b`),
	"a JSON web token":    regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}`),
	"a token of npm":      regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`),
	"a password in a URL": regexp.MustCompile(`\bpostgres(ql)?://[a-z_]+:[A-Za-z0-9!#$^&*+~]{12,}@`),
}

func TestRepository_SecQ2_HasNoSecrets(t *testing.T) {
	t.Parallel()
	for name, text := range tracked(t) {
		for what, pattern := range secrets {
			require.False(t, pattern.MatchString(text), "%s has %s in it", name, what)
		}
	}
	// The patterns find what they are for.
	for what, example := range map[string]string{
		"a token of Flower":   "flower_" + strings.Repeat("aB3_-", 8) + "xyz ",
		"a key of AWS":        "AKIA" + strings.Repeat("A", 16),
		"a private key":       "-----BEGIN EC PRIVATE " + "KEY-----\n" + strings.Repeat("QUJD", 30),
		"a password in a URL": "postgres://flower:" + "correcthorse1" + "@db/flower",
	} {
		require.True(t, secrets[what].MatchString(example), what)
	}
}

// The database's password is never on a command line of ours, where others on the machine
// can read it.
func TestRepository_SecE2_PasswordsAreNoFlags(t *testing.T) {
	t.Parallel()
	for name, text := range tracked(t) {
		ours := name == "docker-compose.yml" || name == "Makefile" || strings.HasPrefix(name, "docker/") ||
			strings.HasPrefix(name, ".ci/") || strings.HasPrefix(name, ".github/workflows/") ||
			strings.HasPrefix(name, "internal/dev/") && !strings.HasSuffix(name, "_test.go")
		if ours {
			require.NotRegexp(t, `-dbpass\b`, text, name)
		}
	}
}

type service struct {
	Image       string
	Build       map[string]any
	Command     any
	Ports       []string
	Volumes     []string
	Privileged  bool
	ReadOnly    bool   `yaml:"read_only"`
	NetworkMode string `yaml:"network_mode"`
	Pid         string
	CapAdd      []string `yaml:"cap_add"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Environment map[string]string
	Healthcheck struct{ Test []string }
}

// The containers of docker-compose can be reached from this machine alone, and can do no
// more than they must.
func TestRepository_SecJ4_ComposeConfinesItsContainers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docker-compose.yml")
	require.NoError(t, err)
	var compose struct{ Services map[string]service }
	require.NoError(t, yaml.Unmarshal(text, &compose))
	require.Len(t, compose.Services, 3)
	for name, s := range compose.Services {
		require.False(t, s.Privileged, name)
		require.Empty(t, s.NetworkMode, name)
		require.Empty(t, s.Pid, name)
		require.Empty(t, s.CapAdd, name)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.NotEmpty(t, s.Healthcheck.Test, name)
		for _, port := range s.Ports {
			require.True(t, strings.HasPrefix(port, "127.0.0.1:"), "%s publishes %s to others", name, port)
		}
		for _, volume := range s.Volumes {
			require.NotContains(t, volume, "docker.sock", name)
			require.False(t, strings.HasPrefix(volume, "/"), name)
		}
		if name == "db" {
			require.Regexp(t, `^postgres:\d+\.\d+`, s.Image, "an exact version")
			require.Empty(t, s.Ports, "nobody but the others reaches it")
			continue
		}
		require.True(t, s.ReadOnly, name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Equal(t, []string{"CMD", name, "-healthcheck"}, s.Healthcheck.Test, "by the binary itself: there may be no shell")
		require.NotEmpty(t, s.Environment["DB_SSLMODE"], "it is said, and not left to a default")
	}
	// What others than this machine's users could reach needs -insecure, and has it because of that.
	require.Contains(t, compose.Services["register"].Command, "-insecure")
}

func TestRepository_SecJ4_Dockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docker/Dockerfile")
	require.NoError(t, err)
	stages := regexp.MustCompile(`(?m)^FROM `).Split(string(text), -1)[1:]
	require.Len(t, stages, 3)
	for _, stage := range stages {
		image := strings.Fields(stage)[0]
		require.Regexp(t, `^[a-z0-9./-]+:[a-z0-9.-]+(@sha256:[0-9a-f]{64})?$`, image, "it has a tag")
		require.NotContains(t, image, ":latest")
		require.NotRegexp(t, `(?m)^ADD |curl |wget |chmod .*[+0-7]*s\b|--privileged`, stage)
		require.NotRegexp(t, `(?mi)^(ARG|ENV) .*(pass|secret|token|key)`, stage, "what is built keeps it")
	}
	for _, stage := range stages[1:] { // what is shipped
		require.Regexp(t, `(?m)^USER [1-9]\d*:[1-9]\d*$`, stage, "not root, by number")
		require.Regexp(t, `(?m)^ENTRYPOINT \["/usr/local/bin/(register|watcher)"\]$`, stage, "without a shell")
		require.NotRegexp(t, `(?m)^RUN `, stage)
	}
	require.Contains(t, stages[0], "GOTOOLCHAIN=local")
	require.Contains(t, stages[0], "-trimpath")
	require.Regexp(t, `^gcr\.io/distroless/static`, stages[1], "register's image has no shell")
}

// What is built is what go.mod says: exact versions, one toolchain, nothing in the place of
// something else.
func TestRepository_SecJ1_Modules(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	require.NotRegexp(t, `(?m)^(replace|exclude)\b`, string(text))
	require.Regexp(t, `(?m)^toolchain go1\.\d+\.\d+$`, string(text))
	for name, ci := range tracked(t) {
		if name == "Makefile" || strings.HasPrefix(name, ".ci/") || strings.HasPrefix(name, "docker/") {
			require.NotRegexp(t, `@latest|go get -u|-mod=mod|GOFLAGS=.*-mod=mod|GONOSUM|GONOSUMDB|GOINSECURE|GOFLAGS=-insecure`, ci, name)
		}
	}
	ci, err := os.ReadFile("../.ci/run")
	require.NoError(t, err)
	require.Contains(t, string(ci), "go mod verify")
	require.Contains(t, string(ci), "go version -m")
}
