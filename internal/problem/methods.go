package problem

import (
	"net/http"
	"slices"
	"strings"
)

// Methods are the handlers of one path. HEAD comes with GET.
type Methods map[string]http.Handler

// Handler serves the path. It is here and not in mux's matchers because those refuse HEAD
// and answer 405 without Allow.
func (m Methods) Handler(fail func(http.ResponseWriter, *http.Request, error)) http.Handler {
	var allowed []string
	for method := range m {
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	list := strings.Join(allowed, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if h, ok := m[method]; ok {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", list)
		fail(w, r, MethodNotAllowed.Because("this path takes %s only", list))
	})
}
