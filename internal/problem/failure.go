package problem

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// Failure is an answer that is no success. Its detail is for the caller, its cause for
// the log.
type Failure struct {
	Kind
	Detail string
	Cause  error
	Extra  Extra
}

// Extra is what an answer may have beside what all have.
type Extra struct {
	Errors     []FieldError `json:"errors,omitempty" doc:"What is wrong, value by value; or what is in the way."`
	Candidates []string     `json:"candidates,omitempty" doc:"Ids that were meant, perhaps."`
	Preview    any          `json:"preview,omitempty" doc:"What would change now: an Effect or a BulkEffect."`
	Flow       any          `json:"flow,omitempty" doc:"The Flow that exists already."`
}

// FieldError is what is wrong with one value of a request. It does not repeat the value,
// which may be a secret.
type FieldError struct {
	Location string `json:"location" doc:"Where: query.since, body.filter.taskId."`
	Message  string `json:"message"`
}

func (f *Failure) Error() string { return f.Code + ": " + f.Detail }

func (f *Failure) Unwrap() error { return f.Cause }

// because is Kind.Because with a cause for the log.
func because(k Kind, cause error, format string, args ...any) *Failure {
	f := k.Because(format, args...)
	f.Cause = cause
	return f
}

// Of finds what to answer to an error. What it does not know is internal, and its text
// stays here. limit is how long the request could take, if its context has ended.
func Of(ctx context.Context, err error, limit time.Duration) *Failure {
	if known, ok := errors.AsType[*Failure](err); ok {
		return known
	}
	if f := refused(err); f != nil {
		return f
	}
	if f := conflict(err); f != nil {
		return f
	}
	if invalid, ok := errors.AsType[*flow.InvalidError](err); ok {
		return WorkflowBroken.Because("%s", invalid.Error())
	}
	switch {
	case errors.Is(err, flow.ErrWaiting):
		return TooManyWait.Because("%s", flow.ErrWaiting)
	case errors.Is(err, flow.ErrKeyReused):
		return KeyReused.Because("this Idempotency-Key was used for a different request; " +
			"use another key for another request")
	case errors.Is(err, flow.ErrFlowExists):
		return FlowExists.Because("a flow with this taskFlowId exists already; choose another one, or none")
	case errors.Is(err, flow.ErrTooMany):
		return TooMany.Because("a request may change %d tasks, and these are more: narrow the filter down, "+
			"or do it in parts", flow.MaxBulkTasks)
	case errors.Is(err, flow.ErrLocked):
		return because(QueryTooSlow, err, "%s, at psql perhaps; try again when that has ended", flow.ErrLocked)
	case errors.Is(err, flow.ErrTooSlow):
		return because(QueryTooSlow, err, "the database was not done with this in the time that it may take: "+
			"ask for less, with a narrower filter, or try again when it is less busy")
	case errors.Is(err, flow.ErrUnavailable):
		return because(NoDatabase, err, "the database is not available; try again in a few seconds (what changes something may have been carried out "+
			"all the same, if the database was lost just then: it is safe to repeat with the Idempotency-Key that it had)")
	case ctx.Err() != nil:
		return because(NoDatabase, err, "no answer came within %s; it is unknown whether the request was carried out, "+
			"and safe to repeat it if it had an Idempotency-Key", limit)
	}
	return Unexpected(err)
}

// Unexpected is the failure for an error that nobody knows.
func Unexpected(err error) *Failure {
	return because(Internal, err, "internal error; the log has the details under this request's id")
}

// refused returns what to answer where somebody may not do something; nil for other
// errors. Whoever comes with a wrong token learns no more than that.
func refused(err error) *Failure {
	var (
		many  *access.TooManyError
		lower *access.RefusedError
	)
	switch {
	case errors.Is(err, access.ErrWrongToken):
		return Unauthenticated.Because("this token is not known here, or no longer good")
	case errors.Is(err, access.ErrWrongUser):
		return Unauthenticated.Because("%s", access.ErrWrongUser)
	case errors.Is(err, access.ErrNoToken):
		return Unauthenticated.Because("say who you are: send a token, as in curl -H 'Authorization: Bearer TOKEN'; " +
			"register token -name NAME -role ROLE makes one")
	case errors.As(err, &many):
		f := TooManyTokens.Because("%s", many)
		f.RetryAfter = int(math.Ceil(many.Wait.Seconds()))
		return f
	case errors.As(err, &lower) && lower.ReadOnly():
		return ReadOnly.Because("%s", lower)
	case errors.As(err, &lower):
		return RoleTooLow.Because("%s", lower)
	}
	return nil
}

// conflict returns what to answer to an action that was not carried out; nil for other
// errors.
func conflict(err error) *Failure {
	var (
		inTheWay *flow.RefusedError
		changed  *flow.PlanChangedError
		guard    *flow.GuardError
	)
	switch {
	case errors.As(err, &inTheWay):
		f := refusals[inTheWay.Code()].Because("%s", inTheWay)
		for _, r := range inTheWay.Refused {
			f.Extra.Errors = append(f.Extra.Errors, FieldError{Location: location(r), Message: r.Detail})
			if len(f.Extra.Errors) == 100 {
				break
			}
		}
		return f
	case errors.As(err, &changed):
		f := PlanChanged.Because("%s; look at the new preview, and repeat the request with its plan or its number", changed)
		f.Extra.Preview = changed.Effect
		if changed.Bulk != nil {
			f.Extra.Preview = changed.Bulk
		}
		return f
	case errors.As(err, &guard):
		return WrongStatus.Because("%s", guard)
	}
	return nil
}

// refusals are the kinds of what is in the way of an action.
var refusals = map[flow.RefusalCode]Kind{
	flow.RefusedTaskRunning:      TaskRunning,
	flow.RefusedDependantRunning: DependantRunning,
	flow.RefusedWrongStatus:      WrongStatus,
	flow.RefusedFlowNotFound:     FlowNotFound,
	flow.RefusedTaskNotFound:     TaskNotFound,
}
