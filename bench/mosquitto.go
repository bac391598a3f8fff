package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// mosquitto is the MQTT broker of that name: QoS 1 over WebSocket, sessions
// that outlive their connections, and a file that it writes every 30 seconds.
type mosquitto struct {
	proc *process
	url  string
}

// mosquittoConfig has a socket that nobody uses: Debian's mosquitto does not
// start with WebSocket alone. Without socket_domain it would take WebSocket
// connections on every address.
const mosquittoConfig = `listener 0 %[2]s/socket
listener %[1]d 127.0.0.1
socket_domain ipv4
protocol websockets
allow_anonymous true
persistence true
persistence_location %[2]s/
autosave_interval 30
max_inflight_messages 100
max_queued_messages 0
log_type error
%[3]s`

func (m *mosquitto) pid() int { return m.proc.pid() }
func (m *mosquitto) stop()    { m.proc.stop() }

func (m *mosquitto) start(ctx context.Context, dir string) error { return m.boot(ctx, dir) }

func (m *mosquitto) boot(ctx context.Context, dir string) error {
	mqtt.ERROR = log.New(io.Discard, "", 0) // failures reach us as errors
	bin, err := lookUp("mosquitto")
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root\n" // it would give up its rights to its directory
	}
	config := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, mosquittoConfig, port, dir, user), 0o600); err != nil {
		return err
	}
	if m.proc, err = launch(ctx, nil, nil, bin, "-c", config); err != nil {
		return err
	}
	m.url = fmt.Sprintf("ws://127.0.0.1:%d/mqtt", port)
	return m.proc.listening(ctx, fmt.Sprintf("127.0.0.1:%d", port))
}

// mqttPeer is one peer of mosquitto.
type mqttPeer struct {
	c      mqtt.Client
	topics []string
	fail   func(error)
	flying chan flight // in the order of sending, which is that of the acknowledgements
	quit   chan struct{}
}

type flight struct {
	token   mqtt.Token
	payload []byte
}

func (m *mosquitto) dial(ctx context.Context, i, n int, h handlers) (client, error) {
	p := &mqttPeer{fail: h.fail, flying: make(chan flight, 1<<14), quit: make(chan struct{})}
	for k := range n {
		p.topics = append(p.topics, fmt.Sprintf("mesh/%d", k))
	}
	got := func(_ mqtt.Client, msg mqtt.Message) { h.got(msg.Payload()) }
	p.c = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(m.url).SetClientID(fmt.Sprintf("peer%d", i)).
		SetCleanSession(false).SetAutoReconnect(false).SetConnectTimeout(10 * time.Second).
		SetDefaultPublishHandler(got). // of a session that comes back, before it has subscribed again
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { h.fail(err) }))
	if err := settle(ctx, p.c.Connect()); err != nil {
		return nil, err
	}
	err := settle(ctx, p.c.Subscribe(p.topics[i], 1, got))
	if err != nil {
		p.c.Disconnect(0)
		return nil, err
	}
	go p.acks(h)
	return p, nil
}

// acks tells of acknowledgements as they come.
func (p *mqttPeer) acks(h handlers) {
	for {
		select {
		case f := <-p.flying:
			select {
			case <-f.token.Done():
			case <-p.quit:
				return
			}
			if err := f.token.Error(); err != nil {
				h.fail(err)
				return
			}
			h.acked(f.payload)
		case <-p.quit:
			return
		}
	}
}

func settle(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *mqttPeer) send(to int, payload []byte) {
	select {
	case p.flying <- flight{p.c.Publish(p.topics[to], 1, false, payload), payload}:
	case <-p.quit:
	}
}

func (p *mqttPeer) close() {
	close(p.quit)
	p.c.Disconnect(0)
}
