package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/claudemesh/claudemesh/internal/seal"
	"github.com/claudemesh/claudemesh/internal/trust"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// ErrUnreachable is wrapped by errors of a broker that does not answer.
var ErrUnreachable = errors.New("the broker does not answer")

// httpBase turns a broker's socket URL into the base of its HTTP paths:
// wss://host/ws becomes https://host.
func httpBase(broker string) (string, error) {
	u, err := url.Parse(broker)
	if err != nil {
		return "", fmt.Errorf("broker URL: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return "", fmt.Errorf("the broker's URL %q does not start with ws:// or wss://", broker)
	}
	if len(u.Path) >= len(wire.PathWS) && u.Path[len(u.Path)-len(wire.PathWS):] == wire.PathWS {
		u.Path = u.Path[:len(u.Path)-len(wire.PathWS)]
	}
	return u.String(), nil
}

// CheckBroker refuses unencrypted URLs beyond loopback, unless insecure is said.
func CheckBroker(broker string, insecure bool) error {
	u, err := url.Parse(broker)
	if err != nil || u.Host == "" || (u.Scheme != "ws" && u.Scheme != "wss") {
		return fmt.Errorf("the broker's URL %q is not of the form ws://HOST/ws or wss://HOST/ws", broker)
	}
	if u.Scheme == "wss" || insecure {
		return nil
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s is not encrypted: who is on the way sees names, sizes and times; use wss://, or say --insecure", broker)
}

// call makes one HTTP request to a broker. A refusal is a *wire.Fault.
func call(ctx context.Context, method, broker, path, token string, in []byte, out any) error {
	base, err := httpBase(broker)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(in))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, CheckRedirect: noRedirect}).Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxHTTPBytes))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := wire.Unmarshal(raw, out); err != nil {
			return fmt.Errorf("%s is no claudemesh broker of this version: %w", base, err)
		}
		return nil
	}
	var f wire.Error
	if wire.Unmarshal(raw, &f) != nil || !f.Code.Known() {
		return fmt.Errorf("%s is no claudemesh broker: it answered %s", base, resp.Status)
	}
	return &wire.Fault{Code: f.Code, RetryAfterMs: f.RetryAfterMs}
}

// noRedirect: a broker's key is pinned, its address is too.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Found makes a mesh of its own keys and registers it at a broker with the
// broker's admin token ("" where none is asked for). Member is the founder's
// name in the mesh.
func Found(ctx context.Context, broker, token, mesh, member string) (Membership, error) {
	if !trust.ValidName(mesh) || !trust.ValidName(member) {
		return Membership{}, ErrBadName
	}
	owner, own, now := trust.NewSecretKey(), trust.NewSecretKey(), time.Now()
	req := wire.FoundRequest{
		Genesis: trust.SignGenesis(owner, mesh, now.UnixMilli()),
		Founder: trust.SignFounder(owner, own.Public(), member, now.UnixMilli()),
	}
	body, err := wire.Marshal(req)
	if err != nil {
		return Membership{}, err
	}
	var reply wire.FoundReply
	if err := call(ctx, http.MethodPost, broker, wire.PathMeshes, token, body, &reply); err != nil {
		return Membership{}, err
	}
	id := trust.MeshID(owner.Public())
	if reply.MeshID != id || trust.CheckKey(reply.BrokerPubkey) != nil {
		return Membership{}, wire.Faultf(wire.CodeBadCertificate, "the broker answered for another mesh")
	}
	key := seal.NewMeshKey(1)
	return Membership{
		Mesh: mesh, MeshID: id, Broker: broker, BrokerKey: reply.BrokerPubkey, Owner: owner.Public(),
		OwnerSeed: owner.Seed(), Member: member, MemberSeed: own.Seed(), Role: trust.RoleOwner,
		Genesis: req.Genesis, Certificate: wire.Certificate{req.Founder},
		Generation: 1, MeshKey: key.Key, Joined: now.UnixMilli(),
	}, nil
}

// ErrBadName says what names look like.
var ErrBadName = errors.New("a name is 1 to 32 of a-z 0-9 . _ - and starts with a letter or digit")

// Invitation is an invite link that was looked up and verified, up to the owner
// key that the link itself names.
type Invitation struct {
	Mesh    string
	MeshID  ID
	Inviter string // the member that issued it
	Role    string
	Expires time.Time
	Broker  string
	// Fingerprint names the owner key: who was invited may compare it with the inviter.
	Fingerprint string

	link       trust.Link
	roster     *trust.Roster
	capability wire.Signed
}

// LookUp fetches what a link invites to and verifies it. Nothing is joined yet.
func LookUp(ctx context.Context, link string, insecure bool) (*Invitation, error) {
	l, err := trust.ParseLink(link)
	if err != nil {
		return nil, &LinkError{err}
	}
	if err := CheckBroker(l.Broker, insecure); err != nil {
		return nil, err
	}
	id := trust.InviteID(l.Secret.InviteKey().Public())
	var reply wire.InviteReply
	if err := call(ctx, http.MethodGet, l.Broker, wire.PathInvites+id.String(), "", nil, &reply); err != nil {
		return nil, err
	}
	if g, err := trust.VerifyGenesis(reply.Genesis); err == nil && g.Owner != l.Owner {
		return nil, wire.Faultf(wire.CodeWrongOwner, "")
	}
	roster, err := trust.NewRoster(l.Owner, reply.Genesis)
	if err != nil {
		return nil, err
	}
	for _, s := range reply.Roles {
		if _, err := roster.AddRole(s); err != nil {
			return nil, err
		}
	}
	var issuer trust.Member
	for _, c := range reply.Issuer {
		if issuer, err = roster.Add(c); err != nil {
			return nil, err
		}
	}
	c, err := roster.VerifyCapability(reply.Capability)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Invite != id:
		return nil, wire.Faultf(wire.CodeWrongInvite, "")
	case c.Broker != l.BrokerKey:
		return nil, wire.Faultf(wire.CodeWrongBroker, "")
	case time.Now().UnixMilli() >= c.Expires:
		return nil, wire.Faultf(wire.CodeInviteExpired, "")
	}
	inviter := "the owner"
	if issuer.Key == c.Issuer || (c.Issuer == l.Owner && issuer.Role == trust.RoleOwner) {
		inviter = issuer.Name
	}
	inv := &Invitation{
		Mesh: roster.Genesis.Name, MeshID: roster.Genesis.Mesh, Inviter: inviter, Role: c.Role,
		Expires: time.UnixMilli(c.Expires), Broker: l.Broker, Fingerprint: fingerprint(roster.Genesis.Mesh),
		link: l, roster: roster, capability: reply.Capability,
	}
	return inv, nil
}

// LinkError says what is wrong with an invite link, in a sentence.
type LinkError struct{ err error }

func (e *LinkError) Error() string { return e.err.Error() }

// fingerprint shows a mesh id, which is a hash of the owner key, in groups of four.
func fingerprint(id ID) string {
	s, out := id.String(), ""
	for i := 0; i < len(s); i += 4 {
		if i > 0 {
			out += " "
		}
		out += s[i : i+4]
	}
	return out
}

// Join makes a member key, has it admitted under a name, and returns the membership.
func (i *Invitation) Join(ctx context.Context, name string) (Membership, error) {
	if !trust.ValidName(name) {
		return Membership{}, ErrBadName
	}
	own, now := trust.NewSecretKey(), time.Now()
	cert := trust.SignJoin(i.link.Secret.InviteKey(), own, i.capability, name, now.UnixMilli())
	if _, err := i.roster.Verify(cert); err != nil {
		return Membership{}, err
	}
	body, err := wire.Marshal(wire.JoinRequest{Certificate: cert})
	if err != nil {
		return Membership{}, err
	}
	var reply wire.JoinReply
	for try := 0; ; try++ { // the same request again is answered alike, and spends no second use
		err = call(ctx, http.MethodPost, i.Broker, wire.PathJoin, "", body, &reply)
		if !errors.Is(err, ErrUnreachable) || try == 2 {
			break
		}
	}
	if err != nil {
		return Membership{}, err
	}
	if !trust.VerifyJoined(i.link.BrokerKey, body, reply.Blob, reply.Sig) {
		return Membership{}, wire.Faultf(wire.CodeWrongBroker, "")
	}
	key, err := seal.OpenMeshKey(i.MeshID, reply.Blob, i.link.Secret.BlobKey())
	if err != nil {
		return Membership{}, err
	}
	return Membership{
		Mesh: i.Mesh, MeshID: i.MeshID, Broker: i.Broker, BrokerKey: i.link.BrokerKey, Owner: i.link.Owner,
		Member: name, MemberSeed: own.Seed(), Role: i.Role, Genesis: i.roster.Statement, Certificate: cert,
		Generation: key.Generation, MeshKey: key.Key, Joined: now.UnixMilli(),
	}, nil
}
