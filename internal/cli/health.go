package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Healthcheck asks the program that runs on this machine whether it is ready. Containers use
// it, which have no curl.
func Healthcheck(ctx context.Context, site string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // it gives its database two
	defer cancel()
	url := site + "/readyz"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	client := http.Client{Transport: &http.Transport{ // no proxy
		DisableKeepAlives: true,
		// It asks this machine, whatever name the certificate is for, and nothing secret.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // whatever came
		return fmt.Errorf("%s: %s: %s", url, answer.Status, strings.TrimSpace(string(reason)))
	}
	return nil
}
