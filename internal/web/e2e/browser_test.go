package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/chromium"
)

// host is a name that is this machine in the browser, and is not localhost: a page there
// is not in a secure context, as when somebody opens http://flower in an office.
const host = "flower.test"

// browser is the one of this package.
var browser struct {
	once sync.Once
	ctx  context.Context // ends with it
	stop func()          // nil if it was not started
	err  error
}

// always are the tests of every run: what an operator comes for. All of them take some
// minutes; make e2e runs them.
var always = []string{
	"TestUI_01_FailureAtAGlance", "TestUI_08_PreviewChangesNothing", "TestUI_11_SkipHoldResume", "TestUI_15_WithoutJavaScript",
}

// startBrowser returns the context of the browser, which the first test starts. Without
// one the test is skipped.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	if os.Getenv("FLOWER_E2E") != "all" && !slices.Contains(always, t.Name()) {
		t.Skip("make e2e runs it")
	}
	path, err := chromium.Find()
	if err != nil {
		t.Skip(err)
	}
	browser.once.Do(func() { browser.err = launch(path) })
	require.NoError(t, browser.err, "start %s", path)
	return browser.ctx
}

func launch(path string) error {
	fonts := filepath.Join(bin, "fonts.conf")
	if err := os.WriteFile(fonts, []byte(fontsConf), 0o600); err != nil {
		return err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // which root cannot have
		chromedp.Env("FONTCONFIG_FILE="+fonts, "TZ=UTC"),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider"),
		chromedp.Flag("disable-lcd-text", true), // pictures are looked at at any size
		chromedp.Flag("hide-scrollbars", false),
		chromedp.Flag("host-resolver-rules", "MAP "+host+" 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	browser.ctx, browser.stop = ctx, func() {
		cancel()
		end()
		chromedp.FromContext(ctx).Allocator.Wait() // or its files are still being written
	}
	return chromedp.Do(ctx)
}

func stopBrowser() {
	if browser.stop != nil {
		browser.stop()
	}
}

// fontsConf makes pages look alike wherever the same fonts are: what a system calls its
// own differs.
const fontsConf = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <match target="pattern">
    <test name="family"><string>system-ui</string></test>
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit>
  </match>
  <match target="pattern">
    <test name="family"><string>sans-serif</string></test>
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit>
  </match>
</fontconfig>
`
