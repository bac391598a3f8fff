package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/claudemesh/claudemesh/client"
	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// ownBroker answers who looks up an invite of alice's and joins by it: a broker with a
// key of its own, which may sign whatever it likes.
type ownBroker struct {
	*hostile
	key    trust.SecretKey
	secret trust.Secret
	look   wire.InviteReply
	blob   wire.Blob
	sign   trust.SecretKey // answers joins
}

// joins has somebody look up an invite and join at a broker that lies as edit says.
func joins(edit func(b *ownBroker)) func(h *hostile) {
	return func(h *hostile) {
		b := &ownBroker{hostile: h, key: trust.NewSecretKey(), secret: trust.NewSecret()}
		b.sign, b.blob = b.key, seal.NewMeshKey(1).Secret(h.am.MeshID, b.secret.BlobKey())
		b.look = wire.InviteReply{Genesis: h.am.Genesis, Issuer: []wire.Certificate{h.am.Certificate}}
		b.grant(h.owner(), nil)
		edit(b)
		srv := httptest.NewServer(b)
		h.Cleanup(srv.Close)
		link := trust.Link{Broker: "ws" + strings.TrimPrefix(srv.URL, "http") + wire.PathWS, BrokerKey: b.key.Public(), Owner: h.am.Owner, Secret: b.secret}
		inv, err := client.LookUp(h.Context(), link.String(), false)
		if err == nil {
			_, err = inv.Join(h.Context(), "carol")
		}
		h.failed = err
	}
}

// grant is the invite that the broker shows.
func (b *ownBroker) grant(issuer trust.SecretKey, edit func(c *trust.Capability)) {
	b.look.Capability = b.capability(issuer, b.secret, func(c *trust.Capability) {
		c.Broker = b.key.Public()
		if edit != nil {
			edit(c)
		}
	})
}

func (b *ownBroker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var reply any = b.look
	if r.URL.Path == wire.PathJoin {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		reply = wire.JoinReply{Blob: b.blob, Generation: 1, Sig: trust.SignJoined(b.sign, body, b.blob)}
	}
	raw, err := wire.Marshal(reply)
	if err != nil {
		b.Error(err)
	}
	_, _ = w.Write(raw)
}

var joinAttacks = []attack{
	{"an invite of another owner's mesh", noJoin, "wrong_owner", joins(func(b *ownBroker) { b.look.Genesis = trust.SignGenesis(b.eve, "acme", 1) })},
	{"an invite other than the link's", noJoin, "wrong_invite", joins(func(b *ownBroker) { b.look.Capability = b.capability(b.owner(), trust.NewSecret(), nil) })},
	{"an invite by who may not issue it", noJoin, "bad_certificate", joins(func(b *ownBroker) { b.grant(b.eve, nil) })},
	{"an invite that was changed to make an admin", noJoin, "bad_signature", joins(func(b *ownBroker) {
		sig := b.look.Capability.Sig
		b.grant(b.owner(), func(c *trust.Capability) { c.Role = trust.RoleAdmin })
		b.look.Capability.Sig = sig
	})},
	{"an invite for another broker", noJoin, "wrong_broker", joins(func(b *ownBroker) { b.grant(b.owner(), func(c *trust.Capability) { c.Broker = b.eve.Public() }) })},
	{"an invite past its time", noJoin, "invite_expired", joins(func(b *ownBroker) {
		b.grant(b.owner(), func(c *trust.Capability) { c.Expires = time.Now().Add(-time.Hour).UnixMilli() })
	})},
	{"a join that another key answers", noJoin, "wrong_broker", joins(func(b *ownBroker) { b.sign = b.eve })},
	{"a join that is answered with another invite's mesh key", noJoin, "bad_box", joins(func(b *ownBroker) {
		b.blob = seal.NewMeshKey(1).Secret(b.am.MeshID, trust.NewSecret().BlobKey())
	})},
	{"a join that is answered with another mesh's key", noJoin, "wrong_mesh", joins(func(b *ownBroker) {
		b.blob = seal.NewMeshKey(1).Secret(trust.MeshID(b.eve.Public()), b.secret.BlobKey())
	})},
}
