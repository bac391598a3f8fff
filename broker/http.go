package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/internal/audit"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

func msTime(ms int64) time.Time { return time.UnixMilli(ms) }

// routes is every path that is served; anything else is 404.
func (b *Broker) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathWS, b.handleWS)
	mux.HandleFunc("POST "+wire.PathMeshes, b.api(b.found))
	mux.HandleFunc("POST "+wire.PathJoin, b.api(b.join))
	mux.HandleFunc("GET "+wire.PathInvites+"{id}", b.api(b.invite))
	mux.HandleFunc("GET /i/{id}", b.invitePage)
	mux.HandleFunc("GET /health", b.health)
	mux.HandleFunc("GET /health/ready", b.ready)
	mux.Handle("GET /metrics", b.metrics.handler())
	mux.HandleFunc("/", http.NotFound) // also for another method on a known path
	return mux
}

// api adapts a handler that returns a JSON value or an error.
func (b *Broker) api(h func(r *http.Request, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := randomID()
		defer func() {
			if v := recover(); v != nil {
				b.log.Error("request panicked", "path", r.Pattern, "request", id, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				b.fail(w, id, errors.New("panic"))
			}
		}()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxHTTPBytes))
		if err != nil {
			b.fail(w, id, wire.Faultf(wire.CodeTooLarge, ""))
			return
		}
		v, err := h(r, body)
		if err != nil {
			b.fail(w, id, err)
			return
		}
		b.reply(w, http.StatusOK, v)
	}
}

func (b *Broker) reply(w http.ResponseWriter, status int, v any) {
	raw, err := wire.Marshal(v)
	if err != nil {
		b.log.Error("answer does not encode", "error", err)
		status, raw = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

// fail answers with the fault as an error frame: one shape of refusal everywhere.
func (b *Broker) fail(w http.ResponseWriter, id string, err error) {
	f := asFault(err)
	if f.Code == wire.CodeInternal {
		b.log.Error("request failed", "request", id, "error", err)
	}
	b.metrics.refused(f.Code)
	if f.RetryAfterMs > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(f.RetryAfterMs/1000+1))
	}
	b.reply(w, f.Code.Info().HTTP, f.Frame(id))
}

// found registers a mesh.
func (b *Broker) found(r *http.Request, body []byte) (any, error) {
	addr := b.address(r)
	if err := b.unblocked(addr); err != nil {
		return nil, err
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	ok, err := b.authorized(r.Context(), token)
	if err != nil {
		return nil, err
	}
	if !ok {
		b.gate.fail(addr)
		return nil, wire.Faultf(wire.CodeUnauthorized, "")
	}
	var req wire.FoundRequest
	if err := wire.Unmarshal(body, &req); err != nil {
		return nil, wire.Faultf(wire.CodeBadFrame, err.Error())
	}
	g, err := trust.VerifyGenesis(req.Genesis)
	if err != nil {
		return nil, err
	}
	roster, err := trust.NewRoster(g.Owner, req.Genesis)
	if err != nil {
		return nil, err
	}
	founder, err := roster.Add(wire.Certificate{req.Founder})
	if err != nil {
		return nil, err
	}
	now := b.cfg.Now()
	err = b.store.CreateMesh(r.Context(), Mesh{ID: g.Mesh, Owner: g.Owner, Name: g.Name, Genesis: req.Genesis, Created: now},
		storedMember(g.Mesh, founder, now))
	if err != nil {
		return nil, err
	}
	b.log.Info("mesh founded", "mesh", g.Mesh.String()[:8])
	b.record(audit.Entry{Event: audit.Created, Mesh: g.Mesh, Member: founder.Key})
	return wire.FoundReply{MeshID: g.Mesh, BrokerPubkey: b.PublicKey()}, nil
}

func storedMember(mesh wire.ID, m trust.Member, now time.Time) Member {
	return Member{Mesh: mesh, Key: m.Key, Name: m.Name, Role: m.Role, Invite: m.Invite, Certificate: m.Certificate, Joined: now}
}

// unblocked refuses an address that has failed too often.
func (b *Broker) unblocked(addr netip.Prefix) error {
	if wait, blocked := b.gate.blocked(addr); blocked {
		return &wire.Fault{Code: wire.CodeRateLimited, RetryAfterMs: wait.Milliseconds() + 1}
	}
	return nil
}

// join admits a member by its certificate.
func (b *Broker) join(r *http.Request, body []byte) (any, error) {
	addr := b.address(r)
	if err := b.unblocked(addr); err != nil {
		return nil, err
	}
	reply, err := b.admit(r.Context(), body)
	if f := asFault(err); err != nil && !f.Code.Info().Retryable && f.Code != wire.CodeNameTaken {
		b.gate.fail(addr)
	}
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func (b *Broker) admit(ctx context.Context, body []byte) (*wire.JoinReply, error) {
	var req wire.JoinRequest
	if err := wire.Unmarshal(body, &req); err != nil {
		return nil, wire.Faultf(wire.CodeBadFrame, err.Error())
	}
	if len(req.Certificate) != 3 {
		return nil, wire.Faultf(wire.CodeBadCertificate, "a join has three statements")
	}
	capability, err := trust.ParseCapability(req.Certificate[0])
	if err != nil {
		return nil, err
	}
	m, err := b.mesh(ctx, capability.Mesh)
	if err != nil {
		return nil, err
	}
	if err := m.fresh(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	member, err := m.roster.Verify(req.Certificate)
	if err == nil && !m.roster.Governs(capability.Issuer) {
		err = wire.Faultf(wire.CodeInviteClosed, "its issuer is no admin any more")
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	a, err := b.store.Join(ctx, Join{Invite: capability.Invite, Member: storedMember(m.id, member, b.cfg.Now()), Now: b.cfg.Now()})
	if errors.Is(err, ErrNotFound) {
		return nil, wire.Faultf(wire.CodeInviteUnknown, "")
	}
	if err != nil {
		return nil, err
	}
	if err := m.joined(req.Certificate, a.Version); err != nil {
		return nil, err
	}
	if !a.Repeated {
		b.record(audit.Entry{Event: audit.Joined, Mesh: m.id, Member: member.Key, Code: member.Role})
	}
	return &wire.JoinReply{Blob: a.Blob, Generation: a.Generation, Sig: trust.SignJoined(b.key, body, a.Blob)}, nil
}

// invite shows an invite to whoever holds its link.
func (b *Broker) invite(r *http.Request, _ []byte) (any, error) {
	addr := b.address(r)
	if err := b.unblocked(addr); err != nil {
		return nil, err
	}
	reply, err := b.lookUpInvite(r)
	if err != nil {
		b.gate.fail(addr)
		return nil, err
	}
	return reply, nil
}

func (b *Broker) lookUpInvite(r *http.Request) (*wire.InviteReply, error) {
	id, err := wire.ParseID(r.PathValue("id"))
	if err != nil {
		return nil, wire.Faultf(wire.CodeInviteUnknown, "")
	}
	in, err := b.store.Invite(r.Context(), id)
	if errors.Is(err, ErrNotFound) {
		return nil, wire.Faultf(wire.CodeInviteUnknown, "")
	}
	if err == nil {
		err = in.Admits(b.cfg.Now())
	}
	if err != nil {
		return nil, err
	}
	m, err := b.mesh(r.Context(), in.Mesh)
	if err != nil {
		return nil, err
	}
	capability, err := trust.ParseCapability(in.Capability)
	if err != nil {
		return nil, err
	}
	if err := m.fresh(r.Context()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.roster.Governs(capability.Issuer) {
		return nil, wire.Faultf(wire.CodeInviteClosed, "its issuer is no admin any more")
	}
	reply := &wire.InviteReply{Genesis: m.roster.Statement, Capability: in.Capability}
	reply.Issuer, reply.Roles = m.vouch(capability.Issuer)
	return reply, nil
}

// vouch returns what proves that an invite's issuer may issue it: its
// certificate, before it those of the admins from whom it comes, and what made them
// admins. For the owner's key it is the founder's, which names it. mesh.mu is held.
func (m *mesh) vouch(issuer wire.Key) (chain []wire.Certificate, roles []wire.Signed) {
	if issuer == m.roster.Genesis.Owner {
		for _, member := range m.roster.Members() {
			if member.Role == trust.RoleOwner {
				return []wire.Certificate{member.Certificate}, nil
			}
		}
		return nil, nil
	}
	for k := issuer; k != m.roster.Genesis.Owner; {
		member, known := m.roster.Known(k)
		if !known {
			break
		}
		chain, roles = append(chain, member.Certificate), append(roles, m.roles[k]...)
		k = member.Issuer
	}
	slices.Reverse(chain)
	return chain, roles
}

// health is liveness: the process answers.
func (b *Broker) health(w http.ResponseWriter, _ *http.Request) {
	b.reply(w, http.StatusOK, map[string]string{"status": "ok", "version": b.cfg.Version})
}

// ready is readiness, for routing and alerts.
func (b *Broker) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := b.readiness(ctx); err != nil {
		code := asFault(err).Code
		b.reply(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "code": string(code), "message": code.Info().Text})
		return
	}
	b.reply(w, http.StatusOK, map[string]string{"status": "ready", "version": b.cfg.Version})
}

// readiness returns why the broker takes no messages, or nil.
func (b *Broker) readiness(ctx context.Context) error {
	switch {
	case b.stopping.Load():
		return ErrClosed
	case b.diskFull.Load():
		return ErrStorageFull
	}
	if err := b.cluster.open(); err != nil {
		return err
	}
	return b.store.Ready(ctx)
}
