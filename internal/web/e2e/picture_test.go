package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// pictures is the folder that pictures are kept in.
func pictures() string {
	if dir := os.Getenv("FLOWER_SCREENSHOTS"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "..", "bin", "screenshots")
}

// nextPicture names the picture of what a tab shows when its test ends.
func (w *world) nextPicture() string {
	name := strings.NewReplacer("/", "_", "#", "_").Replace(w.Name())
	if w.pictured++; w.pictured > 1 {
		name += "_" + strconv.Itoa(w.pictured)
	}
	return name
}

// picture keeps what the window shows. A tab that is gone has no picture, and no test
// fails for that.
func (b *tab) picture(name string) {
	if image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot()); err == nil {
		b.keep(name, image)
	}
}

func (b *tab) keep(name string, image []byte) {
	b.Helper()
	require.NoError(b, os.MkdirAll(pictures(), 0o755))
	require.NoError(b, os.WriteFile(filepath.Join(pictures(), name+".png"), image, 0o600))
}

// themes are what every page must look good in.
var themes = []string{"light", "dark"}

// whole keeps the whole page, in a window as high as it is.
func (b *tab) whole(name string) {
	b.Helper()
	now := eval[[]int64](b, `[innerWidth, innerHeight, document.documentElement.scrollHeight]`)
	b.size(now[0], now[2])
	b.picture(name)
	b.size(now[0], now[1])
}
