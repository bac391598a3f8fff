package broker

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// FuzzHints: whatever comes by the bus, no more is gathered than it names.
func FuzzHints(f *testing.F) {
	for _, kind := range []hintKind{hintQueue, hintPeers, hintMembers, hintOutcome, hintYield, hintMoved, hintNodes, "?"} {
		raw, err := json.Marshal([]hint{{kind, wire.ID{1}, []int64{1, 0, 7, -1}}, {kind, wire.ID{}, nil}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`[{"k":"p","n":[9223372036854775807]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		b := &Broker{log: slog.New(slog.DiscardHandler)}
		b.metrics = newMetrics(b)
		c := &cluster{b: b, beat: make(chan struct{}, 1)}
		h := newHints(c)
		h.got(payload)
		h.got(payload)
		var list []hint
		err := json.Unmarshal(payload, &list)
		named := 0
		for _, one := range list {
			named += len(one.Numbers)
		}
		gathered := 0
		for _, set := range h.in {
			gathered += len(set)
		}
		if err != nil && len(h.in) > 0 || len(h.in) > len(list) || gathered > named {
			t.Fatalf("%q: %v", payload, h.in)
		}
	})
}
