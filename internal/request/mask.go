package request

import "github.com/d-tsuji/flower/internal/flow"

// Mask hides the secrets in a value that was decoded from JSON.
func Mask(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if flow.SecretKey(key) {
				v[key] = "***"
			} else {
				v[key] = Mask(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = Mask(v[i])
		}
	}
	return v
}
