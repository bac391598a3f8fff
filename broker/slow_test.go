package broker_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/claudemesh/claudemesh/broker"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// A peer that does not read is closed, is not read from, holds little memory
// and delays nobody.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		flood func(*peer)
	}{
		{"of pushes", func(*peer) {}},
		{"of answers", func(p *peer) {
			for range 3000 {
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				err := p.ws.Write(ctx, websocket.MessageText, []byte(`[{"type":"list_peers","offline":true,"_reqId":"a"},{"type":"list_peers","offline":true,"_reqId":"b"}]`))
				cancel()
				if err != nil {
					return
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(cfg *broker.Config) {
				cfg.Limits.WriteTimeout = 300 * time.Millisecond
				cfg.Limits.Window, cfg.Limits.WindowBytes, cfg.Limits.OutBytes, cfg.Limits.OutMax = 1000, 64<<20, 16<<20, 24<<20
			})
			bob := w.join(trust.RoleMember, "bob")
			a, good := w.founder.session(), bob.session()
			for range 40 {
				w.founder.session().end()
			}
			deaf := bob.connect(wire.RoleSession, trust.NewSecretKey(), true)
			<-deaf.done
			n := broker.Connections(w.Broker)
			fat := func(s *wire.Send) { s.Ciphertext = make([]byte, 40<<10) }
			go c.flood(deaf)
			var worst time.Duration
			for end := time.Now().Add(15 * time.Second); broker.Connections(w.Broker) == n; {
				if time.Now().After(end) {
					t.Fatal("the deaf one was not closed")
				}
				if c.name == "of pushes" {
					a.answer(a.dm(deaf.pub(), fat))
				}
				began := time.Now()
				id := a.sends(1, good.pub())[0]
				good.ackPush(want(good, byID(id)))
				worst = max(worst, time.Since(began))
			}
			if worst > 3*time.Second {
				t.Errorf("another peer waited %v", worst)
			}
		})
	}
}

// A queue that reaches OutMax closes the connection; pushes alone never fill it.
func TestOutMax(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) {
		l := &c.Limits
		l.OutMax, l.OutBytes, l.WriteTimeout = 160<<10, 32<<10, time.Hour
		l.Window, l.WindowBytes, l.QueueBytes, l.MessageBytes = 1000, 64<<20, 64<<20, 64<<10
	})
	bob := w.join(trust.RoleMember, "bob")
	a, deaf, o := w.founder.session(), bob.connect(wire.RoleSession, trust.NewSecretKey(), true), bob.observer()
	<-deaf.done
	n := broker.Connections(w.Broker)
	for range 240 {
		ask[*wire.Ack](a, a.dm(deaf.pub(), func(s *wire.Send) { s.Ciphertext = make([]byte, 40<<10) }))
	}
	if f := broker.InFlight(w.Broker, w.m.MeshID, deaf.pub()); broker.Connections(w.Broker) != n || f >= 240 {
		t.Fatalf("%d in flight, %d connections of %d", f, broker.Connections(w.Broker), n)
	}
	closed := false
	for i := 0; i < 3000 && !closed; i++ { // receipts cannot wait elsewhere
		m := o.dm(a.pub(), func(s *wire.Send) { s.From = deaf.pub() })
		ask[*wire.Ack](o, m)
		a.ackPush(want(a, byID(m.ID)))
		closed = broker.Connections(w.Broker) < n
	}
	if !closed {
		t.Fatal("it was not closed")
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *broker.Config) { c.Limits.PingEvery, c.Limits.GoneAfter = 5*time.Second, 60*time.Second })
	s, deaf := w.founder.session(), w.founder.connect(wire.RoleSession, trust.NewSecretKey(), true)
	<-deaf.done
	for range 8 { // the one that reads answers pings
		w.Advance(10 * time.Second)
		w.tick()
		time.Sleep(20 * time.Millisecond)
	}
	w.eventually("the deaf one is cut", func() bool { return broker.Connections(w.Broker) == 1 })
	s.sync()
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bob := w.join(trust.RoleMember, "bob")
	a, b := w.founder.session(), bob.session()
	stranger := w.dial()
	go stranger.read()
	deaf := bob.connect(wire.RoleSession, trust.NewSecretKey(), true)
	<-deaf.done
	var ids []wire.ID
	for range 50 {
		m := a.dm(deaf.pub())
		a.request(m)
		ids = append(ids, m.ID)
	}
	for range 50 {
		want[*wire.Ack](a)
	}
	w.down = true
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	err := w.Broker.Shutdown(ctx) // the deaf one does not answer the close
	if took := time.Since(began); err == nil || took > 1500*time.Millisecond {
		t.Errorf("shutdown took %v: %v", took, err)
	}
	for _, p := range []*peer{a, b, stranger} {
		if got := p.closed(); got != websocket.StatusGoingAway {
			t.Errorf("close code %d: %v", got, p.err)
		}
	}
	if status, _, _ := w.http("GET", "/health/ready", "", nil); status != 503 {
		t.Errorf("ready: %d", status)
	}
	if status, _, _ := w.http("GET", "/ws", "", nil); status != 503 {
		t.Errorf("ws: %d", status)
	}
	w.Stop()
	w.Start()
	w.down = false
	again := bob.again(deaf)
	for _, id := range ids {
		again.ackPush(want(again, byID(id)))
	}
}

// Those that connect while the broker stops are told so, and none outlives it.
func TestShutdownWhileConnecting(t *testing.T) {
	t.Parallel()
	for range 20 {
		w := newWorld(t, nil)
		w.down = true
		var wg sync.WaitGroup
		came := make(chan bool, 8)
		for range cap(came) {
			wg.Go(func() {
				ws, answer, err := websocket.Dial(t.Context(), w.URL, nil)
				came <- true
				for err == nil { // the challenge, then the end
					_, _, err = ws.Read(t.Context())
				}
				if code := websocket.CloseStatus(err); code != websocket.StatusGoingAway && (answer == nil || answer.StatusCode != http.StatusServiceUnavailable) {
					t.Errorf("%v, close code %d", err, code)
				}
			})
		}
		<-came
		if err := w.Broker.Shutdown(t.Context()); err != nil || broker.Connections(w.Broker) != 0 {
			t.Errorf("shutdown: %v, and %d connections", err, broker.Connections(w.Broker))
		}
		wg.Wait()
	}
}
