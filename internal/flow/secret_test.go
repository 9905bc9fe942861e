package flow

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSecretKey(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"password", "DB_PASS", "clientSecret", "Token", "API-KEY", "Authorization", "credentials"} {
		require.True(t, SecretKey(key), key)
	}
	for _, key := range []string{"", "url", "BODY", "day", "SLEEP_TIME_SECOND"} {
		require.False(t, SecretKey(key), key)
	}
}
