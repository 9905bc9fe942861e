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

// secrets are what keys and tokens look like. Each begins with letters that are searched
// for quickly, which a \b before them would prevent.
var secrets = map[string]*regexp.Regexp{
	"a private key":       regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{100}`),
	"a token of Flower":   regexp.MustCompile(`flower_[A-Za-z0-9_-]{43}\b`),
	"a key of AWS":        regexp.MustCompile(`(AKIA|ASIA)[0-9A-Z]{16}\b`),
	"a token of GitHub":   regexp.MustCompile(`(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})`),
	"a token of GitLab":   regexp.MustCompile(`glpat-[A-Za-z0-9_-]{20}\b`),
	"a token of Slack":    regexp.MustCompile(`xox[abposr]-[A-Za-z0-9-]{20}`),
	"a key of Google":     regexp.MustCompile(`AIza[0-9A-Za-z_-]{35}\b`),
	"a JSON web token":    regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}`),
	"a token of npm":      regexp.MustCompile(`npm_[A-Za-z0-9]{36}\b`),
	"a password in a URL": regexp.MustCompile(`postgres(ql)?://[a-z_]+:[A-Za-z0-9!#$^&*+~]{12,}@`),
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

// checks are what must hold where others reach Flower, and the tests that say so. What is
// not here cannot be a test: the steps of .ci/run build twice (sec-J3) and verify modules.
var checks = map[string][]string{
	"sec-A1, who is let in where":                 {"TestServer_SecA1_WithoutTokens", "TestRepository_SecJ4_ComposeConfinesItsContainers"},
	"sec-A2, tokens and roles":                    {"TestServer_SecA2_EachRouteForEachCaller", "TestControl_SecA2_TheFileIsForItsOwnerAlone", "TestControl_SecA2_TokensAreReplacedWithoutARestart", "TestRoutes_Roles"},
	"sec-A5, guessing":                            {"TestControl_SecA5_GuessingIsSlow", "TestServer_SecA5_TooManyWrongTokens"},
	"sec-B1, other sites":                         {"TestServer_RefusesOtherSites", "TestSecB1_AnotherSiteGetsNothingDone", "TestRegister_SecB1_SecE1_ReadingChangesNothingAndTellsNoSecret"},
	"sec-B2, no CORS":                             {"TestServer_RefusesOtherSites", "FuzzServer"},
	"sec-B3, rebound names":                       {"TestServer_ServesKnownHostsOnly"},
	"sec-E1, secrets are masked":                  {"TestRegister_SecB1_SecE1_ReadingChangesNothingAndTellsNoSecret", "TestSecretsAreNowhere"},
	"sec-E2, the database's password":             {"TestRepository_SecE2_PasswordsAreNoFlags", "TestDatabase_SecE2_TheDriversTraceIsRefused", "TestFault10_ThePasswordIsKept"},
	"sec-E3, PostgreSQL's log":                    {"TestServerLog_SecE3_HasNoParameters"},
	"sec-F1, no SQL from input":                   {"TestRegister_SecF1_SecG4_NoValueHurts", "TestStatements_NothingIsInjected"},
	"sec-F2, U+0000 and bad UTF-8":                {"FuzzRegisterBody", "TestRegister_SecF1_SecG4_NoValueHurts"},
	"sec-G1, limits of size":                      {"TestRegister_TheBodysLimitIsOneMiB", "TestServe_RefusesLongHeaders", "TestRegister_Refusals"},
	"sec-G2, limits of time":                      {"TestServer_ARequestHas15Seconds", "TestServe_SecG2_SlowHeadersAreCutOff"},
	"sec-G3, connections and requests":            {"TestServe_SecG3_ANewConnectionTakesTheRoomOfTheLongestIdle", "TestServe_SecG3_WithoutRoomTheNewOnesAreTurnedAway", "TestServer_LimitsRequestsAtOnce"},
	"sec-G4, errors that repeat long values":      {"TestRegister_SecF1_SecG4_NoValueHurts", "TestRegister_SurvivesEveryValue"},
	"sec-H1, TLS":                                 {"TestServe_SecH1_TLS", "TestServe_SecH1_NoTLSWithoutACertificate"},
	"sec-H2, TLS to the database":                 {"TestOpen_SecH2_TheServerProvesWhoItIs", "TestDatabase_SecH2_WhoNeedNotProveWhoItIs"},
	"sec-I1, rights in the database":              {"TestRoles_SecI1_EachStatementAsEachRole", "TestRoles_SecI1_EverybodyHasWhatTheyNeed"},
	"sec-I2, functions with the owner's rights":   {"TestRoles_SecI2_TriggersHaveTheOwnersRights", "TestRoles_SecI2_FunctionsWithTheOwnersRightsAreSafe"},
	"sec-J1, modules":                             {"TestRepository_SecJ1_Modules", "TestModulesOfThePrograms"},
	"sec-J4, containers":                          {"TestRepository_SecJ4_ComposeConfinesItsContainers", "TestRepository_SecJ4_Dockerfile"},
	"sec-K1, lines of the log":                    {"TestRegister_SecK1_NobodyWritesLinesIntoTheLog"},
	"sec-K2, the same line over and over":         {"TestThrottle_WritesTheSameErrorOnceASecond", "TestServer_SecK2_RefusalsDoNotFillTheLog", "TestOutage"},
	"sec-M1, metrics and profiles elsewhere":      {"TestServe_SecM1", "TestRegister_SecM1_NothingElseIsServed"},
	"sec-M2, errors tell nothing":                 {"TestRegister_SecM2_ErrorsTellNothing"},
	"sec-M3, panics":                              {"TestServer_APanicEndsOneRequest"},
	"sec-N1, who did what":                        {"TestRoles_SecI2_TriggersHaveTheOwnersRights", "TestRoles_SecI1_EachStatementAsEachRole", "TestServer_SecA2_WhoIsCallingIsWrittenDown"},
	"sec-N2, idempotency keys are their caller's": {"TestServer_SecN2_KeysBelongToTheirCaller"},
	"sec-O1, caps":                                {"TestLimitWaiting_SecO1", "TestRegister_SecO1_TooManyFlowsWait"},
	"sec-Q1, files that are embedded":             {"TestRegister_SecM1_NothingElseIsServed"},
	"sec-Q2, no secrets in the repository":        {"TestRepository_SecQ2_HasNoSecrets"},
}

func TestRepository_WhatMustHoldHasItsCheck(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for name, text := range tracked(t) {
		if strings.HasSuffix(name, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(text, -1) {
				there[m[1]] = true
			}
		}
	}
	for what, tests := range checks {
		require.NotEmpty(t, tests, what)
		for _, test := range tests {
			require.True(t, there[test], "%s: there is no %s", what, test)
		}
	}
	model, err := os.ReadFile("../.github/SECURITY.md")
	require.NoError(t, err)
	require.Regexp(t, `Reviewed \d+ [A-Z][a-z]+ 20\d\d`, string(model))
}
