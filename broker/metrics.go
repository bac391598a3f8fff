package broker

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/claudemesh/claudemesh/internal/wire"
)

// metrics is what a broker counts, on a registry of its own: two brokers in
// one process do not mix. docs/operations.md explains each name.
type metrics struct {
	registry       *prometheus.Registry
	acceptedTotal  prometheus.Counter
	duplicates     prometheus.Counter
	pushed         prometheus.Counter
	delivered      prometheus.Counter
	preAuthDropped prometheus.Counter
	commitSeconds  prometheus.Histogram
	bouncedTotal   *prometheus.CounterVec
	refusedTotal   *prometheus.CounterVec
	closedTotal    *prometheus.CounterVec
	connections    *prometheus.GaugeVec
	hintsSent      prometheus.Counter
	hintsReceived  prometheus.Counter
	hintsLost      prometheus.Counter
}

func newMetrics(b *Broker) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry:       prometheus.NewRegistry(),
		acceptedTotal:  counter("claudemesh_messages_accepted_total", "Messages committed."),
		duplicates:     counter("claudemesh_messages_duplicate_total", "Sends that repeated an accepted message."),
		pushed:         counter("claudemesh_deliveries_pushed_total", "Deliveries written to a recipient, repeats included."),
		delivered:      counter("claudemesh_deliveries_delivered_total", "Deliveries acknowledged by their recipients."),
		preAuthDropped: counter("claudemesh_preauth_dropped_total", "Sockets dropped, or refused, before they authenticated."),
		hintsSent:      counter("claudemesh_hints_sent_total", "Payloads of hints given to the bus."),
		hintsReceived:  counter("claudemesh_hints_received_total", "Payloads of hints that came by the bus."),
		hintsLost:      counter("claudemesh_hints_lost_total", "Payloads of hints that the bus did not take; what they spoke of is found by polling."),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "claudemesh_accept_seconds", Help: "Time from a valid send to its commit on disk.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2, 14),
		}),
		bouncedTotal: vec("claudemesh_deliveries_bounced_total", "Deliveries that will never happen, by code.", "code"),
		refusedTotal: vec("claudemesh_requests_refused_total", "Requests refused, by code.", "code"),
		closedTotal:  vec("claudemesh_connections_closed_total", "Connections the broker closed, by close code.", "close_code"),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "claudemesh_connections", Help: "Authenticated connections, by role.",
		}, []string{"role"}),
	}
	// Every value from the start: a rate over a counter that appears with its
	// first count misses that count.
	for _, c := range wire.Codes() {
		m.bouncedTotal.WithLabelValues(string(c))
		m.refusedTotal.WithLabelValues(string(c))
	}
	for _, c := range []wire.CloseCode{wire.CloseBadHello, wire.CloseUnknown, wire.CloseRemoved, wire.CloseSlow, wire.CloseReplaced, wire.CloseKicked,
		wire.CloseVersion, wire.CloseGoingAway, wire.CloseFrameTooBig} {
		m.closedTotal.WithLabelValues(strconv.Itoa(int(c)))
	}
	for _, r := range []wire.Role{wire.RoleSession, wire.RolePerson, wire.RoleObserver} {
		m.connections.WithLabelValues(string(r))
	}
	m.registry.MustRegister(m.acceptedTotal, m.duplicates, m.pushed, m.delivered, m.preAuthDropped, m.commitSeconds,
		m.bouncedTotal, m.refusedTotal, m.closedTotal, m.connections,
		m.hintsSent, m.hintsReceived, m.hintsLost, &storeCollector{b},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) accepted(duplicate bool, took time.Duration) {
	if duplicate {
		m.duplicates.Inc()
		return
	}
	m.acceptedTotal.Inc()
	m.commitSeconds.Observe(took.Seconds())
}

func (m *metrics) bounced(c wire.Code, n int) {
	m.bouncedTotal.WithLabelValues(string(c)).Add(float64(n))
}
func (m *metrics) refused(c wire.Code)      { m.refusedTotal.WithLabelValues(string(c)).Inc() }
func (m *metrics) connected(r wire.Role)    { m.connections.WithLabelValues(string(r)).Inc() }
func (m *metrics) disconnected(r wire.Role) { m.connections.WithLabelValues(string(r)).Dec() }
func (m *metrics) closed(c wire.CloseCode) {
	m.closedTotal.WithLabelValues(strconv.Itoa(int(c))).Inc()
}

// storeCollector asks the store when it is scraped.
type storeCollector struct{ b *Broker }

var (
	descReady  = prometheus.NewDesc("claudemesh_ready", "1 while the broker takes messages, as /health/ready answers; else 0.", nil, nil)
	descQueued = prometheus.NewDesc("claudemesh_queue_deliveries", "Deliveries that wait for their recipients.", nil, nil)
	descOldest = prometheus.NewDesc("claudemesh_queue_oldest_seconds", "Age of the oldest waiting delivery.", nil, nil)
	descMeshes = prometheus.NewDesc("claudemesh_meshes", "Meshes stored.", nil, nil)
	descMember = prometheus.NewDesc("claudemesh_members", "Members that were not removed.", nil, nil)
	descCommit = prometheus.NewDesc("claudemesh_store_commits_total", "Transactions committed.", nil, nil)
	descOps    = prometheus.NewDesc("claudemesh_store_operations_total", "Operations committed; by commits it is the mean batch.", nil, nil)
	descOut    = prometheus.NewDesc("claudemesh_out_queue_max_bytes", "Bytes that wait for the connection for which the most do.", nil, nil)
	descNodes  = prometheus.NewDesc("claudemesh_nodes", "Brokers that share the store and stand, this one included; 1 for one that has its store alone.", nil, nil)
	descTime   = prometheus.NewDesc("claudemesh_store_commit_seconds_total", "Time spent in commits.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descReady, descQueued, descOldest, descMeshes, descMember, descCommit, descOps, descTime, descOut, descNodes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *storeCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(s.b.ctx, 3*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	// A store that does not answer is what claudemesh_ready is for: the other
	// metrics are told all the same.
	ready := 0.0
	if s.b.readiness(ctx) == nil {
		ready = 1
	}
	gauge(descReady, ready)
	gauge(descNodes, float64(s.b.cluster.size()))
	most := 0
	for _, c := range s.b.connections() {
		most = max(most, c.out.Bytes())
	}
	gauge(descOut, float64(most))
	st, err := s.b.store.Stats(ctx)
	if err != nil {
		s.b.log.Warn("the store does not answer", "error", err)
		return
	}
	total := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	age := 0.0
	if !st.OldestQueued.IsZero() {
		age = s.b.cfg.Now().Sub(st.OldestQueued).Seconds()
	}
	gauge(descQueued, float64(st.Queued))
	gauge(descOldest, age)
	gauge(descMeshes, float64(st.Meshes))
	gauge(descMember, float64(st.Members))
	total(descCommit, float64(st.Commits))
	total(descOps, float64(st.CommittedOps))
	total(descTime, st.CommitSeconds)
}
