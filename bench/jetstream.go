package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsEnv makes this program a NATS server; it holds a natsConfig.
const natsEnv = "CLAUDEMESH_BENCH_NATS"

type natsConfig struct {
	Dir    string `json:"dir"`
	Always bool   `json:"always"` // sync_interval: always
	Port   int    `json:"port"`   // for clients without WebSocket
}

// serveNATS is the NATS server: JetStream on files, WebSocket on a free port of
// the loopback address. It prints its URL and ends when standard input does,
// which is when the program that started it is gone.
func serveNATS(raw string) error {
	var c natsConfig
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: c.Port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: c.Dir, SyncAlways: c.Always,
		Websocket: server.WebsocketOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoTLS: true},
	})
	if err != nil {
		return err
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("nats-server is not ready")
	}
	fmt.Println(s.WebsocketURL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// jetStream is nats-server with JetStream: a work queue stream on files, one
// durable consumer with explicit acknowledgements for each peer.
type jetStream struct {
	always bool
	proc   *process
	told   lines // its URL
	url    string
	stream jetstream.Stream
	admin  *nats.Conn
}

func (j *jetStream) pid() int { return j.proc.pid() }

func (j *jetStream) stop() {
	if j.admin != nil {
		j.admin.Close()
	}
	j.proc.stop()
}

func (j *jetStream) boot(ctx context.Context, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	config, err := json.Marshal(natsConfig{Dir: dir, Always: j.always, Port: port})
	if err != nil {
		return err
	}
	j.told = make(lines, 1)
	if j.proc, err = launch(ctx, j.told, []string{natsEnv + "=" + string(config)}, self); err != nil {
		return err
	}
	return j.proc.listening(ctx, fmt.Sprintf("127.0.0.1:%d", port))
}

func (j *jetStream) start(ctx context.Context, dir string) (err error) {
	if err := j.boot(ctx, dir); err != nil {
		return err
	}
	select {
	case j.url = <-j.told:
	case <-j.proc.ended:
		return fmt.Errorf("nats-server ended: %s", &j.proc.output)
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.admin, err = nats.Connect(j.url); err != nil {
		return err
	}
	js, err := jetstream.New(j.admin)
	if err != nil {
		return err
	}
	j.stream, err = js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "mesh", Subjects: []string{"mesh.*"}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
	})
	return err
}

// lines gives the first thing written to it.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- strings.TrimSpace(string(p)):
	default:
	}
	return len(p), nil
}

// natsPeer is one peer of JetStream. Its library gathers what is sent at the
// same time into one write.
type natsPeer struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	queue  jetstream.ConsumeContext
	fail   func(error)
	topics []string
}

func (j *jetStream) dial(ctx context.Context, i, n int, h handlers) (client, error) {
	p := &natsPeer{fail: h.fail}
	for k := range n {
		p.topics = append(p.topics, fmt.Sprintf("mesh.%d", k))
	}
	var err error
	if p.conn, err = nats.Connect(j.url, nats.NoReconnect(), nats.MaxPingsOutstanding(10)); err != nil {
		return nil, err
	}
	p.js, err = jetstream.New(p.conn, jetstream.WithPublishAsyncMaxPending(1<<20),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, _ *jetstream.PubAck) { h.acked(m.Data) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { h.fail(err) }))
	if err != nil {
		p.conn.Close()
		return nil, err
	}
	c, err := j.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: fmt.Sprintf("peer%d", i), FilterSubject: p.topics[i], AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err == nil {
		// The stream is looked up on the peer's own connection, so that its messages come there.
		c, err = p.js.Consumer(ctx, "mesh", c.CachedInfo().Name)
	}
	if err == nil {
		p.queue, err = c.Consume(func(m jetstream.Msg) {
			h.got(m.Data())
			if err := m.Ack(); err != nil {
				h.fail(err)
			}
		})
	}
	if err != nil {
		p.conn.Close()
		return nil, err
	}
	return p, nil
}

func (p *natsPeer) send(to int, payload []byte) {
	if _, err := p.js.PublishAsync(p.topics[to], payload); err != nil {
		p.fail(err)
	}
}

func (p *natsPeer) close() {
	p.queue.Stop()
	p.conn.Close()
}
