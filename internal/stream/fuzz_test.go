package stream

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// FuzzEvents: whatever the mod tells, in whatever order, the stream goes on,
// and no message is read that it has not handed over. A batch called last is
// the last one that it has.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{
		`{"event":"hello"}{"event":"outcome","busy":true,"batches":[{"batch":"last","via":"submit","over":true}]}{"event":"step","busy":true,"steps":1}{"steps":1}`,
		`{"event":"prompt","busy":true}{"event":"outcome","busy":true,"batches":[{"batch":"last","via":"prompt","over":true}]}{"event":"turn.complete","steps":1}{}`,
		`{"event":"hello","session":"s1"}{"event":"turn.start","busy":true}{"event":"step","busy":true,"steps":1}{"event":"turn.complete","steps":1}`,
		`{"event":"hello","batches":[{"batch":"x","via":"submit","holds":[{"number":1}],"over":true,"steps":1}]}{"event":"prompt","busy":true}`,
		`{"event":"hello"}{"event":"tool","busy":true}{"event":"outcome","batches":[{"batch":"","via":"?","failed":"no"}]}{"event":"session.end"}`,
		`{"steps":-9223372036854775808}{"event":"turn.complete","aborted":true,"steps":9223372036854775807}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := emptyRoom(t, mailbox.NewMemory())
		defer func() { check(t, r.box.Close()) }()
		check(t, r.box.PutAgent(ctx, agentOf(mailbox.Push)))
		r.receive(wire.PriorityLow, wire.PriorityNext)
		handed, last := "", ""
		dec := json.NewDecoder(bytes.NewReader(data))
		for range 20 {
			var e Event
			if dec.Decode(&e) != nil {
				break
			}
			for i := range e.Batches {
				if e.Batches[i].Batch == "last" {
					e.Batches[i].Batch = last
				}
			}
			r.receive(wire.PriorityNow)
			a, begun := r.deliver(e), r.did("submit")
			for _, i := range begun {
				last = i.Batch
			}
			last = cmp.Or(a.Batch, last)
			out, err := json.Marshal([]any{a, begun})
			check(t, err)
			handed += string(out)
		}
		read, _, err := r.box.List(ctx, mailbox.Query{Recipients: []wire.Key{key(1)}, Read: true})
		check(t, err)
		for _, m := range read {
			if m.ReadAt != 0 && !strings.Contains(handed, m.Text) {
				t.Fatalf("%s is read and was not handed over: %s", m.Text, handed)
			}
		}
	})
}

// FuzzRequest: a body of the socket's requests is an event, which the stream
// gets as it was sent, or is refused.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"event":"hello","session":"s1","batches":[{"batch":"b","holds":[{"number":1,"mesh":"01010101010101010101010101010101"}]}]}`))
	f.Add([]byte(`{"event":1}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, done := newCalls(), make(chan struct{})
		go func() {
			defer close(done)
			if q, ok := <-c.queue; ok {
				q.answer <- Answer{Append: q.event.Name}
			}
		}()
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body)))
		var e Event
		var a Answer
		switch err := json.NewDecoder(bytes.NewReader(body)).Decode(&e); {
		case w.Code == http.StatusBadRequest:
			if err == nil && len(body) <= maxEvent {
				t.Fatalf("%q is refused", body)
			}
			close(c.queue)
		case w.Code != http.StatusOK || json.Unmarshal(w.Body.Bytes(), &a) != nil || a.Append != e.Name:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
		<-done
	})
}
