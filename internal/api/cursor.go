package api

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// A cursor is a place in the list of flows: a version, microseconds, the id of a flow, and
// a checksum, so that what was changed or cut off is no cursor.

const cursorVersion = 1

func formatCursor(p flow.Position) string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(p.At.UnixMicro()))
	b = append(b, p.Flow...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor reads a cursor; the empty one is the beginning of the list.
func parseCursor(text string) (flow.Position, error) {
	if text == "" {
		return flow.Position{}, nil
	}
	invalid := problem.InvalidCursor.Because("this is no cursor: take nextCursor of the page before as it is, or begin again without one")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 13 || b[0] != cursorVersion {
		return flow.Position{}, invalid
	}
	sum := len(b) - 4
	if crc32.ChecksumIEEE(b[:sum]) != binary.BigEndian.Uint32(b[sum:]) {
		return flow.Position{}, invalid
	}
	at := time.UnixMicro(int64(binary.BigEndian.Uint64(b[1:9]))).UTC()
	id := string(b[9:sum])
	if at.Year() < 1 || at.Year() > 9999 || at.IsZero() || !request.Storable(id) {
		return flow.Position{}, invalid
	}
	return flow.Position{At: at, Flow: flow.ID(id)}, nil
}
