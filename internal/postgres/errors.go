package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/d-tsuji/flower/internal/flow"
)

// translate adds what was done to an error, and flow.ErrUnavailable where the database
// is away rather than something wrong.
func translate(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case unavailable(err) && !errors.Is(err, flow.ErrUnavailable):
		return fmt.Errorf("%s: %w: %w", doing, flow.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unavailable reports whether trying again later, on another connection, can help.
func unavailable(err error) bool {
	if errors.Is(err, flow.ErrUnavailable) || errors.Is(err, ErrSchemaOld) {
		return true
	}
	if errors.Is(err, flow.ErrTooSlow) || errors.Is(err, flow.ErrLocked) {
		return false
	}
	if several, ok := errors.AsType[severalErrors](err); ok { // such as one for each host: any of them may come back
		return slices.ContainsFunc(several.Unwrap(), unavailable)
	}
	if overlong(err) {
		return false
	}
	if e, ok := errors.AsType[*pq.Error](err); ok {
		switch e.Code.Class() {
		case pqerror.ClassConnectionException, // 08
			pqerror.ClassInsufficientResources, // 53: too many connections, disk full
			pqerror.ClassOperatorIntervention:  // 57: shutting down, starting up, cancelled
			return true
		}
		return readOnly(err) || retryable(err)
	}
	return broken(err) || readOnly(err)
}

type severalErrors interface {
	error
	Unwrap() []error
}

// errReadOnly means that the server takes no writes: it is a standby, or somebody said so.
var errReadOnly = errors.New("the database is read-only")

// readOnly reports whether err says so, in whichever way. lib/pq has no type for what
// target_session_attrs finds.
func readOnly(err error) bool {
	if errors.Is(err, errReadOnly) || pq.As(err, pqerror.ReadOnlySQLTransaction) != nil {
		return true
	}
	if e := pq.As(err, pqerror.FeatureNotSupported); e != nil { // BEGIN READ WRITE on a standby
		return strings.HasSuffix(e.Message, "during recovery")
	}
	text := err.Error()
	return strings.HasSuffix(text, "session is read-only") || strings.HasSuffix(text, "server is in hot standby mode")
}

// broken reports whether err came from the connection rather than from the server, so
// that it is unknown whether the statement was carried out.
func broken(err error) bool {
	if _, ok := errors.AsType[*pq.Error](err); ok {
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, sql.ErrConnDone) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) ||
		strings.HasPrefix(err.Error(), "pq: ") // pq's own errors, which have no type
}

// retryable reports whether the same statement may succeed at once.
func retryable(err error) bool {
	return pq.As(err, pqerror.TRSerializationFailure, pqerror.TRDeadlockDetected, pqerror.LockNotAvailable) != nil
}

// locked makes flow.ErrLocked of a wait that was in vain, for what a person has asked for: he is
// told what is in the way. The engine tries again, as after an outage.
func locked(err error) error {
	if pq.As(err, pqerror.LockNotAvailable) != nil {
		return fmt.Errorf("%w: %w", flow.ErrLocked, err)
	}
	return err
}

// overlong reports whether err is one of the server's that lib/pq cannot read (see
// pqguard): over 30,000 bytes, it repeats a value that the database does not take. The
// connection is gone, but the statement was refused.
func overlong(err error) bool {
	text := err.Error()
	return strings.Contains(text, "pq: server error: ") && strings.Contains(text, "SERROR")
}

// splittable reports whether an error of a batch may be the fault of a single row: one
// that somebody has locked, a value that the database does not take, or one that a trigger
// of somebody's refuses.
func splittable(err error) bool {
	return badValue(err) != "" || retryable(err) ||
		pq.As(err, pqerror.QueryCanceled, pqerror.RaiseException) != nil || inClass(err, pqerror.ClassIntegrityConstraintViolation)
}

func inClass(err error, class pqerror.Class) bool {
	e, ok := errors.AsType[*pq.Error](err)
	return ok && e.Code.Class() == class
}

func undefinedTable(err error) bool { return pq.As(err, pqerror.UndefinedTable) != nil }

func uniqueViolation(err error, constraint string) bool {
	e := pq.As(err, pqerror.UniqueViolation)
	return e != nil && e.Constraint == constraint
}

// badValue says why the database does not take a value; "" if that is not what err says.
func badValue(err error) string {
	switch {
	case err == nil:
		return ""
	case overlong(err):
		return "the database does not take one of its values"
	case inClass(err, pqerror.ClassDataException), // 22
		pq.As(err, pqerror.CheckViolation, pqerror.ProgramLimitExceeded) != nil:
		e, _ := errors.AsType[*pq.Error](err)
		return e.Message
	}
	return ""
}
